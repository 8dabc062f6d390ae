"""What operators ask: ``celery coord leaders`` and ``celery coord step-down``, as processes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from coord_commands import NAME, Lively, run_coord
from coord_site import Site
from local_processes import wait_until
from pages import PRINTED_ADDRESS, ROOT, blocks_of, table_rows

from celery_coord.cli import run
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server

#: Of leases that do not end while a test runs.
LONG = 60.0
#: Of leases that are renewed while a test waits for that, and do not end.
TTL = 6.0


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with Site(folder) as site:
        yield site


@pytest.fixture
def lasting(site: Site, folder: Path) -> Iterator[Lively]:
    with Lively(site, folder, LONG) as lasting:
        yield lasting


@pytest.fixture
def brief(site: Site, folder: Path) -> Iterator[Lively]:
    with Lively(site, folder, TTL) as brief:
        yield brief


def refused(ended: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a command says why it cannot."""
    assert ended.returncode == 1
    [sentence] = ended.stderr.splitlines()
    assert sentence.startswith("celery_coord: ")
    return sentence


def test_the_table_says_who_leads_since_when_and_for_how_long(site: Site, lasting: Lively) -> None:
    """7. Operators: who leads, since when, term, last act."""
    leader = lasting.start_leader(options=["--label", "blue"])

    listed = run_coord(site, "leaders")

    head, row = listed.stdout.splitlines()
    assert head.split() == ["NAME", "WHO", "TERM", "SINCE", "LEFT", "LAST", "ACT"]
    assert row.startswith(NAME)
    assert f":{leader.pid} blue" in row
    assert f"  {lasting.terms()[0]}  " in row
    assert listed.returncode == 0


def test_a_label_of_the_settings_is_seen_as_well(site: Site, lasting: Lively) -> None:
    leader = lasting.start_leader(coord_label="v7")

    listed = run_coord(site, "leaders", NAME)

    assert f":{leader.pid} v7" in listed.stdout


def test_the_leaders_as_json(site: Site, lasting: Lively) -> None:
    leader = lasting.start_leader()

    listed = run_coord(site, "leaders", "--json")

    [found] = json.loads(listed.stdout)
    assert (found["name"], found["term"]) == (NAME, lasting.terms()[0])
    assert found["label"].endswith(f":{leader.pid}")
    assert 0 < found["left"] <= LONG
    assert set(found) == {"name", "holder", "label", "term", "since", "left", "last_act", "last_act_at"}


def test_the_last_act_is_told_after_the_next_renewal(site: Site, brief: Lively) -> None:
    brief.start_leader()

    def last_act() -> str:
        return "".join(found["last_act"] for found in json.loads(run_coord(site, "leaders", "--json").stdout))

    wait_until(lambda: last_act() == f"began {sys.executable}", "the last act")


def test_where_nobody_leads_the_table_is_empty(site: Site) -> None:
    listed = run_coord(site, "leaders")

    assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 1)


def test_a_name_without_a_leader_is_told_with_status_1(site: Site, lasting: Lively) -> None:
    lasting.start_leader()

    listed = run_coord(site, "leaders", "--json", NAME, "nobody")

    assert [found["name"] for found in json.loads(listed.stdout)] == [NAME]
    assert refused(listed) == "celery_coord: nobody leads nobody"


def test_who_is_not_asked_for_is_not_told(site: Site, lasting: Lively) -> None:
    lasting.start_leader()

    listed = run_coord(site, "leaders", "nobody")

    assert NAME not in listed.stdout


def test_a_leader_steps_down_and_another_leads(site: Site, brief: Lively) -> None:
    """7. Step down on request."""
    _, follower = brief.start_pair()

    asked = run_coord(site, "step-down", NAME)
    brief.wait_for_terms(2)

    assert asked.returncode == 0
    assert asked.stdout.startswith(f"{NAME}: ")
    assert asked.stdout.endswith(f":{follower.pid} leads now, term {brief.terms()[-1]}\n")


def test_a_leader_that_has_no_follower_steps_down_and_says_that_nobody_took_over(site: Site, brief: Lively) -> None:
    brief.start_leader()

    asked = run_coord(site, "step-down", NAME)

    assert "nobody took over: if nobody else campaigns, it leads again" in refused(asked)


def test_a_leader_that_does_not_step_down_in_time_is_told_with_status_1(site: Site, lasting: Lively) -> None:
    leader = lasting.start_leader()
    leader.signal(signal.SIGSTOP)

    asked = run_coord(site, "step-down", NAME, "--timeout", "0.5")

    assert f"still leads {NAME}" in refused(asked)


def test_nobody_steps_down_where_nobody_leads(site: Site) -> None:
    assert f"nobody leads {NAME}" in refused(run_coord(site, "step-down", NAME))


COMMANDS = [("leaders",), ("step-down", NAME)]
ALL_COMMANDS = [*COMMANDS, ("run", "--name", NAME, "true")]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_that_does_not_answer_is_told_in_a_sentence(site: Site, command: tuple[str, ...]) -> None:
    asked = run_coord(site, *command, coord_url="redis://127.0.0.1:1/0")

    assert asked.returncode == 1
    assert "Traceback" not in asked.stderr
    assert "celery_coord: " in asked.stderr.splitlines()[-1]


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_a_wrong_setting_is_told_in_a_sentence(site: Site, command: tuple[str, ...]) -> None:
    asked = run_coord(site, *command, coord_leader_ttl=-1)

    assert "coord_leader_ttl" in refused(asked)


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_a_store_of_one_process_is_refused(site: Site, command: tuple[str, ...]) -> None:
    asked = run_coord(site, *command, coord_url="memory://")

    assert "memory:// serves one process" in refused(asked)


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_no_application_is_told_in_a_sentence(folder: Path, command: tuple[str, ...]) -> None:
    alone = {name: value for name, value in os.environ.items() if name not in ("CELERY_BROKER_URL", "PYTHONPATH")}
    program = [sys.executable, "-m", "celery", "coord", *command]

    asked = subprocess.run(program, cwd=folder, env=alone, capture_output=True, text=True, timeout=60, check=False)

    assert "there is no store" in refused(asked)


def test_the_commands_are_among_celerys_own() -> None:
    program = [sys.executable, "-m", "celery", "--help"]

    helped = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)

    assert "  coord " in helped.stdout


PAGE = ROOT / "docs" / "coord-run.md"


def test_the_commands_of_the_page_run(folder: Path, server: LocalServer, redis_url: str) -> None:
    """Everything printed runs: the application of the page, a script of the reader's, and the commands in order."""
    [module] = blocks_of(PAGE, "python")
    (folder / "fleet.py").write_text(module.text.replace(PRINTED_ADDRESS, redis_url))
    (folder / "poller.sh").write_text("echo $1 $COORD_NAME; exec sleep 60\n")
    lines = [line for block in blocks_of(PAGE, "console") for line in block.text.splitlines() if line.startswith("$ ")]
    begun, *asked = [[sys.executable, "-m", *shlex.split(line.removeprefix("$ "))] for line in lines]

    with subprocess.Popen(begun, cwd=folder, stdout=subprocess.PIPE) as poller:
        assert poller.stdout is not None
        assert poller.stdout.readline() == b"west poller\n"
        with subprocess.Popen(begun, cwd=folder, stderr=subprocess.PIPE) as another:
            assert another.stderr is not None
            while b"following" not in another.stderr.readline():
                assert another.poll() is None
            statuses = [subprocess.run(each, cwd=folder, timeout=60, check=False).returncode for each in asked]
            another.terminate()
        poller.terminate()

    assert statuses == [0] * 3
    assert poller.returncode == -signal.SIGTERM


def test_the_table_of_options_is_complete() -> None:
    documented = {row[0].strip("`") for row in table_rows(PAGE)}

    assert {max(option.opts, key=len) for option in run.params if isinstance(option, click.Option)} - documented == {
        "--loglevel"  # as -l, like Celery's own
    }
