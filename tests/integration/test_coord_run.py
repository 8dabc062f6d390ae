"""``celery coord run``: a command that the leader alone runs. Real processes and a real server, under real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from coord_commands import NAME, Lively, coord, environment, guardian_of, lives, run_coord, wait_until_dead
from coord_site import Site, fresh_n
from local_processes import soonest, wait_until

from celery_coord import guardian
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server

TTL = 6.0
#: Of leases that end, or are renewed, soon enough to wait for it; a command has three seconds of them for its end.
STEADY = 15.0
#: Of leases that do not end while a test runs: what happens then happens for another reason.
LONG = 60.0
#: What is done at once is done within this, in seconds, on a machine that has much else to do. The grace is longer, of
#: a lease that lasts long.
AT_ONCE = 10.0
RUN = ("run", "--name", NAME)


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with Site(folder, coord_leader_ttl=LONG) as site:
        yield site


@pytest.fixture
def lively(site: Site, folder: Path) -> Iterator[Lively]:
    with Lively(site, folder, TTL) as lively:
        yield lively


@pytest.fixture
def steady(site: Site, folder: Path) -> Iterator[Lively]:
    with Lively(site, folder, STEADY) as steady:
        yield steady


@contextmanager
def elsewhere(folder: Path, ttl: float) -> Iterator[tuple[Site, Lively]]:
    """A site of its own, for what is done more than once."""
    place = folder / fresh_n()
    with Site(place, coord_leader_ttl=LONG) as site, Lively(site, place, ttl) as lively:
        yield site, lively


@pytest.fixture
def lasting(site: Site, folder: Path) -> Iterator[Lively]:
    with Lively(site, folder, LONG) as lasting:
        yield lasting


def lease_exists(site: Site) -> bool:
    return bool(site.client.exists(f"lock:{{coord:leader:{NAME}}}"))


@pytest.fixture(autouse=True, scope="module")
def hung_up_as_usual() -> Iterator[None]:
    """Under nohup a SIGHUP is ignored, in a script's background a SIGINT; and so they are by what is started here."""
    usual = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def in_a_terminal(site: Site, arguments: list[str]) -> subprocess.Popen[bytes]:
    """A program that is a terminal with ``celery coord ARGUMENTS`` in it: what it reads is typed there."""
    script = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    return subprocess.Popen(
        [sys.executable, "-c", script, *coord(*arguments)],
        env=environment(site),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_the_leader_alone_runs_the_command_and_a_follower_says_whom_it_follows(lasting: Lively) -> None:
    """6. A command run by the leader alone."""
    leader, follower = lasting.start_pair()

    follower.wait_for(f":{leader.pid})")

    assert len(lasting.pids()) == 1
    assert len(lasting.terms()) == 1


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137)])
def test_it_ends_with_the_status_of_a_command_that_ends_by_itself(site: Site, script: str, status: int) -> None:
    ended = run_coord(site, *RUN, "--", "sh", "-c", script)

    assert ended.returncode == status
    assert not lease_exists(site)


def test_it_resigns_when_the_command_has_ended_by_itself(site: Site) -> None:
    ended = run_coord(site, *RUN, "--", "true")

    assert f"{NAME}: resigned" in ended.stderr


@pytest.mark.parametrize(("program", "status"), [("/no/such/program", 127), (str(Path(__file__)), 126)])
def test_a_command_that_cannot_be_started_says_so(site: Site, program: str, status: int) -> None:
    ended = run_coord(site, *RUN, "--", program)

    assert ended.returncode == status
    assert f"{program} cannot be started: " in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not lease_exists(site)


def test_the_command_has_our_input_and_output_and_knows_its_term(site: Site) -> None:
    script = "cat; echo $COORD_NAME $COORD_TERM; echo wrong >&2"

    ended = run_coord(site, *RUN, "--", "sh", "-c", script, stdin="given\n")

    given, told = ended.stdout.splitlines()
    name, term = told.split()
    assert (given, name) == ("given", NAME)
    assert f"elected, term {term}," in ended.stderr
    assert "wrong" in ended.stderr.splitlines()


def test_what_stands_behind_the_command_is_the_commands(site: Site) -> None:
    ended = run_coord(site, *RUN, "echo", "--name", "other")

    assert ended.stdout == "--name other\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_and_then_us(site: Site, lasting: Lively, number: signal.Signals) -> None:
    leader, _ = lasting.start_pair()
    [command] = lasting.pids()

    leader.signal(number)

    assert leader.wait() == -number
    assert not lives(command)
    lasting.wait_for_terms(2, timeout=AT_ONCE)
    assert lasting.never_overlapped()


def test_a_signal_reaches_the_command_once(lasting: Lively) -> None:
    leader = lasting.start_leader("polite")

    leader.signal(signal.SIGINT)

    assert leader.wait() == 0
    assert (lasting.heard("SIGTERM"), lasting.heard("SIGINT")) == (1, 0)


def test_a_follower_ends_at_once_and_disturbs_nobody(lasting: Lively) -> None:
    _, follower = lasting.start_pair()
    [command] = lasting.pids()

    follower.signal(signal.SIGTERM)

    assert follower.wait() == -signal.SIGTERM
    assert lives(command)
    assert len(lasting.terms()) == 1


def test_a_command_that_does_not_hear_sigterm_is_killed_after_the_grace(site: Site, lasting: Lively) -> None:
    leader = lasting.start_leader("stubborn", options=["--grace", "3"])

    asked_at = time.monotonic()
    leader.signal(signal.SIGTERM)
    wait_until_dead(lasting.pids())

    assert time.monotonic() - asked_at >= 3
    assert leader.wait() == 128 + signal.SIGKILL
    assert lasting.heard("SIGTERM") == 1
    assert not lease_exists(site)


def test_a_second_signal_kills_the_command(lasting: Lively) -> None:
    leader = lasting.start_leader("stubborn")  # its grace is longer than this test
    leader.signal(signal.SIGTERM)
    wait_until(lambda: lasting.heard("SIGTERM"), "SIGTERM")
    time.sleep(1.1)  # sooner it may be the same request, by another way

    leader.signal(signal.SIGINT)

    assert leader.wait(AT_ONCE) == 128 + signal.SIGKILL


def test_a_request_that_comes_by_two_ways_leaves_the_command_its_grace(lasting: Lively) -> None:
    """Ctrl-C under a supervisor that passes it on as SIGTERM."""
    leader = lasting.start_leader("polite")
    leader.signal(signal.SIGINT)
    leader.signal(signal.SIGTERM)

    assert leader.wait(AT_ONCE) == 0
    assert lasting.heard("SIGTERM") == 1


def test_ctrl_c_in_a_terminal_reaches_the_command_once(site: Site, lasting: Lively) -> None:
    terminal = in_a_terminal(site, lasting.arguments("polite"))
    wait_until(lambda: lasting.heard("lives"), "a living command")

    terminal.communicate(b"\x03", timeout=30)

    assert terminal.returncode == 0
    assert (lasting.heard("SIGTERM"), lasting.heard("SIGINT")) == (1, 0)


def test_a_follower_ends_with_its_terminal(site: Site, lasting: Lively) -> None:
    lasting.start_leader()
    terminal = in_a_terminal(site, lasting.arguments())
    assert terminal.stdout is not None
    while b"following" not in terminal.stdout.readline():
        assert terminal.poll() is None
    [follower] = psutil.Process(terminal.pid).children()

    terminal.kill()
    terminal.communicate()

    wait_until_dead([follower.pid])


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_other_signals_are_passed_on(lasting: Lively, number: signal.Signals) -> None:
    leader, follower = lasting.start_pair()

    follower.signal(number)
    leader.signal(number)
    wait_until(lambda: lasting.heard(number.name), number.name)

    assert lasting.heard(number.name) == 1
    follower.signal(signal.SIGTERM)
    assert follower.wait() == -signal.SIGTERM  # it was still there


def test_a_command_never_outlives_its_parent(lasting: Lively) -> None:
    """6. ... and never outlives its parent: the parent is killed, the command and its children are dead at once."""
    leader = lasting.start_leader("stubborn", "family")
    family = lasting.pids()

    leader.signal(signal.SIGKILL)

    wait_until_dead(family, timeout=AT_ONCE)


def test_another_takes_over_when_the_parent_is_killed(folder: Path, server: LocalServer) -> None:
    """16. Take-over within ttl + 1 s of a crash; the commands never live at the same time."""

    def kill() -> float:
        with elsewhere(folder, TTL) as (site, lively):
            leader, follower = lively.start_pair("stubborn", "family")

            killed_at = time.time()
            leader.signal(signal.SIGKILL)
            elected = site.wait_for_signal("leader_elected", pid=follower.pid)
            lively.wait_for_terms(2)

            assert lively.never_overlapped()
            return float(elected["at"]) - killed_at

    assert soonest(kill, TTL + 1) <= TTL + 1


def test_the_command_of_a_paused_parent_is_dead_before_another_leads(steady: Lively) -> None:
    """14. Two processes never both act inside their trust windows: the command of a paused parent is dead by then."""
    leader, _ = steady.start_pair("stubborn", "family")
    family = steady.pids()

    os.killpg(leader.pid, signal.SIGSTOP)  # Ctrl-Z in a terminal stops the whole group
    steady.wait_for_terms(2)
    os.killpg(leader.pid, signal.SIGCONT)
    leader.wait_for("following")

    wait_until_dead(family)
    assert len(steady.terms()) == 2
    assert steady.never_overlapped()


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_the_command_is_dead_before_an_unreachable_store_can_give_its_lease_away(
    folder: Path, server: LocalServer, number: signal.Signals
) -> None:
    """The store cannot be reached: the command is dead before the lease can be another's, and was asked to end."""

    def go_away() -> float:
        with elsewhere(folder, STEADY) as (site, steady):
            steady.start_leader("stubborn", "family")
            family = steady.pids()
            [term] = steady.terms()
            assert site.server.pid is not None

            os.kill(site.server.pid, number)
            away_at = time.monotonic()
            wait_until_dead(family, timeout=STEADY + AT_ONCE)

            assert steady.heard("SIGTERM") == 2
            if number == signal.SIGSTOP:
                os.kill(site.server.pid, signal.SIGCONT)  # so that it can be ended
            return steady.last_sign(term) - away_at

    # The guardian may be paused together with its command when the time is up.
    assert soonest(go_away, STEADY) <= STEADY


def test_it_campaigns_again_when_the_store_is_back(site: Site, lively: Lively) -> None:
    leader = lively.start_leader()
    first = lively.pids()
    assert site.server.pid is not None
    os.kill(site.server.pid, signal.SIGSTOP)
    wait_until_dead(first)

    os.kill(site.server.pid, signal.SIGCONT)
    lively.wait_for_terms(2)

    assert lively.never_overlapped()
    leader.signal(signal.SIGTERM)
    assert leader.wait() == -signal.SIGTERM


def test_a_lease_that_is_gone_ends_the_command_and_it_campaigns_again(site: Site, steady: Lively) -> None:
    leader = steady.start_leader("polite")

    site.client.delete(f"lock:{{coord:leader:{NAME}}}")
    steady.wait_for_terms(2)

    leader.wait_for("(gone)")
    assert steady.heard("SIGTERM") == 1
    assert steady.never_overlapped()


def test_a_command_that_lives_on_after_its_lease_was_gone_is_killed_after_the_grace(site: Site, lively: Lively) -> None:
    lively.start_leader("stubborn", "family")
    family = lively.pids()

    site.client.delete(f"lock:{{coord:leader:{NAME}}}")
    lively.wait_for_terms(2)

    assert not any(map(lives, family))
    assert lively.never_overlapped()


def test_a_leader_that_is_asked_to_step_down_hands_over_when_its_command_is_dead(site: Site, steady: Lively) -> None:
    _, follower = steady.start_pair("stubborn", "family")

    asked = run_coord(site, "step-down", NAME)
    steady.wait_for_terms(2)

    assert f":{follower.pid} leads now" in asked.stdout
    assert steady.heard("SIGTERM") == 2
    assert steady.never_overlapped()


def test_a_term_that_reaches_its_limit_is_handed_over_when_its_command_is_dead(lively: Lively) -> None:
    lively.start_pair("stubborn", "family", coord_leader_term_limit=1.0)

    lively.wait_for_terms(3)

    assert lively.never_overlapped()


def test_the_command_dies_with_its_guardian_and_runs_again_in_a_new_term(lively: Lively) -> None:
    leader = lively.start_leader("stubborn", "family")
    family = lively.pids()

    guardian_of(leader).kill()
    wait_until_dead(family, timeout=AT_ONCE)
    lively.wait_for_terms(2)

    leader.wait_for("was killed with its guardian")
    assert lively.never_overlapped()


def test_a_guardian_that_is_stopped_keeps_no_command_alive(lasting: Lively) -> None:
    leader = lasting.start_leader("stubborn", "family", options=["--grace", "0.2"])
    family = lasting.pids()

    guardian_of(leader).suspend()
    leader.signal(signal.SIGTERM)

    assert leader.wait() == 128 + signal.SIGKILL
    assert not any(map(lives, family))


def test_parent_and_guardian_killed_together_leave_no_command(lasting: Lively) -> None:
    """Linux kills the command then; what is not promised is anything about its children."""
    leader = lasting.start_leader("stubborn")
    family = lasting.pids()
    between = guardian_of(leader)

    leader.signal(signal.SIGSTOP)
    between.kill()
    leader.signal(signal.SIGKILL)

    wait_until_dead(family, timeout=AT_ONCE)


def test_what_a_command_leaves_behind_ends_before_the_leadership(lasting: Lively) -> None:
    leader = lasting.start_leader("family", options=["--grace", "3"])
    family = lasting.pids()
    [command] = guardian_of(leader).children()

    command.kill()

    assert leader.wait() == 128 + signal.SIGKILL
    assert not any(map(lives, family))
    assert lasting.heard("SIGTERM") == 1


def test_a_command_that_was_stopped_ends_all_the_same(lasting: Lively) -> None:
    leader = lasting.start_leader("polite")
    os.kill(lasting.pids()[0], signal.SIGSTOP)

    leader.signal(signal.SIGTERM)

    assert leader.wait() == 0


def test_a_grace_that_is_too_long_for_the_ttl_is_refused(site: Site) -> None:
    ended = run_coord(site, *RUN, "--ttl", "8", "--grace", "3", "--", "true")

    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "write --grace 1.6, or --ttl 15" in ended.stderr


def test_a_ttl_that_is_too_short_for_a_process_is_refused(site: Site) -> None:
    ended = run_coord(site, *RUN, "--", "true", coord_leader_ttl=0.5)

    assert ended.returncode == 1
    assert "write --ttl 1" in ended.stderr


def test_the_guardian_imports_nothing_of_celery() -> None:
    """It is ready in a blink."""
    script = f"import runpy, sys; runpy.run_path({guardian.__file__!r}); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in ran.stdout.split()}
    assert not imported & {"celery", "kombu", "redis", "celery_coord"}
