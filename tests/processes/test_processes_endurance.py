"""The short run of ``python -m tests.processes.endurance``; and the long one, as the page on processes shows it."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from celery_coord.testing import LocalServer
from tests.processes.census import Sample, objections
from tests.processes.connections import files_of

ROOT = Path(__file__).resolve().parents[2]
PRINTED = ROOT / "docs" / "endurance_output.txt"
PLACES = ["gate", "prefork", "threads", "gevent", "solo"]
#: So many connections to the store does a process have at most: `coord_max_connections`, and its keeper's.
AT_MOST = 11


@pytest.mark.timeout(600)
def test_over_some_thousand_runs_nothing_grows(server: LocalServer) -> None:
    """No thread or connection is left over, and the keeper has nothing left to do, whatever way the runs ended."""
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.processes.endurance", "--tasks", "2000", "--rounds", "6"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = run.communicate(timeout=540)
    except subprocess.TimeoutExpired:
        run.terminate()  # it ends what it has started
        said, _ = run.communicate()

    assert run.returncode == 0, said
    for end in ("cooling", "failed", "held", "no store", "well"):
        assert f" {end}" in said


def test_the_page_on_processes_shows_the_last_long_run() -> None:
    """It is written where it is run, by `make endurance`."""
    printed = PRINTED.read_text(encoding="utf-8").strip()

    assert printed in (ROOT / "docs" / "processes.md").read_text(encoding="utf-8")
    assert printed.startswith("100,000 runs")


def test_an_open_file_is_told_by_what_it_leads_to(server: LocalServer, tmp_path: Path) -> None:
    before = files_of(os.getpid(), {"store": server})

    with (
        socket.create_connection(("127.0.0.1", server.port)),
        socket.socket(),
        selectors.EpollSelector(),
        subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL),
        (tmp_path / "plain").open("w"),
    ):
        after = files_of(os.getpid(), {"store": server})

    assert after - before == {"store": 1, "sockets": 1, "polls": 1, "pipes": 1, "plain": 1}


@pytest.mark.parametrize("kind", ["threads", "store", "broker", "results", "polls", "sockets"])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_lost_with_every_hundredth_run_is_told(place: str, kind: str) -> None:
    """Connections to the broker as well, whatever Celery may keep of them."""

    def known(runs: int, lost: int) -> Sample:
        threads = lost if kind == "threads" else 0
        return Sample(runs, 1, 6 + threads, 16 + lost, {kind: 2 + lost}, memory=64.0, objects=44_000)

    steady, leaking = ([known(runs, runs // 100 * leaks) for runs in range(0, 25_001, 2_500)] for leaks in (0, 1))

    assert objections(place, steady) == []
    assert [said.split(" there ")[0] for said in objections(place, leaking)] == [f"{place}: of {kind}"]


@pytest.mark.parametrize("place", PLACES)
def test_the_long_run_has_been_everywhere(place: str) -> None:
    assert shown(place, "runs")[-1] == (100_000 if place == "gate" else 25_000)


@pytest.mark.parametrize("place", PLACES)
def test_what_grows_in_the_long_run_is_celerys_own(place: str) -> None:
    """Connections to the broker and to the results, and what kombu polls with: the page says why, and how far."""
    for processes, store in zip(shown(place, "processes"), shown(place, "store"), strict=True):
        assert store <= AT_MOST * processes
    rest = shown(place, "rest")
    assert max(rest) <= rest[0] + 1
    for threads, results in zip(shown(place, "threads"), shown(place, "results"), strict=True):
        assert results <= threads


def shown(place: str, column: str) -> list[int]:
    """What the table of the long run says of a place, from its first line to its last."""
    lines = [line.split() for line in PRINTED.read_text(encoding="utf-8").splitlines()]
    head = next(line for line in lines if line[:1] == ["runs"])
    found = [line[1:][head.index(column)] for line in lines if line[:1] == [place]]
    return [int(number.replace(",", "")) for number in found]
