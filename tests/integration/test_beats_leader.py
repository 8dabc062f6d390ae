"""Of many beats one acts, and another takes over when it fails. Real beats, as processes, under real signals."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from black_holes import reserved_port
from coord_site import Site, fresh_n
from local_processes import CeleryProcess, soonest, wait_until

from celery_coord.testing import LocalServer
from tests.processes.connections import ports_of

pytestmark = pytest.mark.server

TTL = 6.0
#: Of leases that do not end while a test runs.
LONG = 60.0
SCHEDULE = {"often": {"task": "note", "schedule": 0.1, "args": ["tick"]}}
#: So long after a resignation another leads, in seconds.
AT_ONCE = 0.2


def site_of_beats(folder: Path, ttl: float, **conf: Any) -> Site:
    """A site without workers: what is sent stays in the queue, where it can be counted."""
    return Site(folder, **{"beat_schedule": SCHEDULE, "coord_leader_ttl": ttl, **conf})


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with site_of_beats(folder, TTL) as site:
        yield site


@pytest.fixture
def lasting(folder: Path) -> Iterator[Site]:
    with site_of_beats(folder, LONG) as lasting:
        yield lasting


def senders(site: Site) -> list[int]:
    """The process that sent each message, in order."""
    messages = reversed(site.client.lrange("celery", 0, -1))
    origins = [json.loads(message)["headers"]["origin"] for message in messages]
    return [int(origin.partition("@")[0].removeprefix("gen")) for origin in origins]


def wait_for_sends(site: Site, pid: int, *, more: int = 1, timeout: float = 30.0) -> None:
    """Until a process has sent so many more."""
    so_far = senders(site).count(pid)
    wait_until(lambda: senders(site).count(pid) >= so_far + more, f"{pid} sends {more} more", timeout=timeout)


def start_pair(site: Site) -> tuple[CeleryProcess, CeleryProcess]:
    """A beat that leads and sends, and one that follows and has begun to observe."""
    leader = site.beat("leader")
    site.wait_for_signal("leader_elected", pid=leader.pid)
    follower = site.beat("follower")
    site.wait_for_signal("leader_observed", pid=follower.pid)
    wait_for_sends(site, leader.pid)
    return leader, follower


def test_of_two_beats_one_acts(lasting: Site) -> None:
    """`celery beat -S celery_coord.beat:LeaderScheduler`: of two beats one acts."""
    leader, follower = start_pair(lasting)

    wait_for_sends(lasting, leader.pid, more=13)

    assert set(senders(lasting)) == {leader.pid}
    assert not lasting.signals("leader_elected", pid=follower.pid)
    leader.wait_for("beat: elected, term ")


def test_a_follower_creates_no_schedule_file(lasting: Site) -> None:
    """A follower loads nothing and writes nothing: the inner scheduler's file appears where the leader runs, alone."""
    leader, follower = start_pair(lasting)
    wait_for_sends(lasting, leader.pid, more=8)

    assert list(leader.folder.glob("celerybeat-schedule*"))
    assert [path.name for path in follower.folder.iterdir()] == ["output.txt"]


def test_another_beat_takes_over_after_a_crash(folder: Path, server: LocalServer) -> None:
    """16. Take-over within ttl + 1 s of a crash; and the new term's number is larger."""

    def crash() -> float:
        with site_of_beats(folder / fresh_n(), TTL) as site:
            leader, follower = start_pair(site)

            killed_at = time.time()
            leader.signal(signal.SIGKILL)
            elected = site.wait_for_signal("leader_elected", pid=follower.pid)
            wait_for_sends(site, follower.pid, more=3)

            assert elected["term"] > site.signals("leader_elected", pid=leader.pid)[-1]["term"]
            return float(elected["at"]) - killed_at

    assert soonest(crash, TTL + 1) <= TTL + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_another_beat_takes_over_after_an_orderly_end(
    folder: Path, server: LocalServer, number: signal.Signals
) -> None:
    """16. Take-over within 200 ms of a resignation: the leader wakes who observes."""

    def end() -> float:
        with site_of_beats(folder / fresh_n(), LONG) as site:
            leader, follower = start_pair(site)

            site.wait_until_asked("beat")
            leader.signal(number)
            wait_for_sends(site, follower.pid, more=3)

            assert leader.wait() == 0
            return seconds_after_resignation(site, leader, follower)

    assert soonest(end, AT_ONCE) <= AT_ONCE


def seconds_after_resignation(site: Site, leader: CeleryProcess, follower: CeleryProcess) -> float:
    """From the leader's resignation to the follower's election, by the clock of this machine."""
    resigned = site.wait_for_signal("leader_resigned", pid=leader.pid)
    elected = site.wait_for_signal("leader_elected", pid=follower.pid)
    return float(elected["at"]) - float(resigned["at"])


def test_a_follower_that_is_dead_while_it_waits_delays_nobody(folder: Path, server: LocalServer) -> None:
    """16. Take-over within 200 ms of a resignation, also where the one who waits the longest does not wake up."""

    def end_beside_a_frozen_one() -> float:
        with site_of_beats(folder / fresh_n(), LONG) as site:
            leader, first = start_pair(site)
            followers = [first, site.beat("another")]
            site.wait_for_signal("leader_observed", pid=followers[-1].pid)

            follower = freeze_the_first_in_line(site, followers)
            leader.signal(signal.SIGTERM)
            wait_for_sends(site, follower.pid, more=3)

            return seconds_after_resignation(site, leader, follower)

    assert soonest(end_beside_a_frozen_one, AT_ONCE) <= AT_ONCE


def freeze_the_first_in_line(site: Site, followers: list[CeleryProcess]) -> CeleryProcess:
    """Pause one of two who follow, while it waits; the other one has begun to wait just now.

    Who follows waits for a second, and then asks again; also for one who is paused the server waits no longer.

    Returns:
        The other one.
    """
    last_asked = dict.fromkeys((follower.pid for follower in followers), 0.0)
    asks = site.asks("beat")
    for at, port in asks:
        one, other = sorted(followers, key=lambda follower: port not in ports_of(follower.pid, site.server))
        if port not in ports_of(one.pid, site.server):
            continue  # on a connection that is closed by now
        if 0.4 < at - last_asked[other.pid] < 1.0:  # so it is first in line, for as long, when the other one asks again
            one.signal(signal.SIGSTOP)
            next(asks)
            asks.close()
            return other
        last_asked[one.pid] = at
    raise AssertionError("unreachable")


def test_a_beat_outlives_its_store_and_does_not_lead_without_it(folder: Path, server: LocalServer) -> None:
    """An unreachable store makes a follower of a leader before its lease can be another's; beat neither dies nor leads
    without a lease, and no instant is lost."""
    with (
        reserved_port() as port,
        LocalServer(port=port) as store,
        site_of_beats(folder, TTL, coord_url=store.url) as site,
    ):
        beat = site.beat("beat")
        wait_for_sends(site, beat.pid, more=2)

        store.kill()
        deposed = site.wait_for_signal("leader_deposed", pid=beat.pid)
        sent = len(wait_until_quiet(site))
        with LocalServer(port=store.port):
            wait_for_sends(site, beat.pid, more=3)

        assert deposed["why"] == "unrenewed"
        assert len(senders(site)) > sent
        assert len(site.signals("leader_elected")) == 2


def test_a_follower_that_ends_disturbs_nobody(lasting: Site) -> None:
    """6. Only the owner's own lease is ever released: a follower's end does not end the leader's term."""
    leader, follower = start_pair(lasting)

    follower.signal(signal.SIGTERM)
    follower.wait()
    wait_for_sends(lasting, leader.pid, more=5)

    assert [elected["pid"] for elected in lasting.signals("leader_elected")] == [leader.pid]
    assert not lasting.signals("leader_deposed")


def test_a_paused_leader_sends_nothing_after_its_term(folder: Path, server: LocalServer) -> None:
    """14. Two processes never both act inside their trust windows: a leader that was paused wakes up as a follower."""
    with site_of_beats(folder, TTL, beat_schedule={"seldom": {**SCHEDULE["often"], "schedule": 0.7}}) as site:
        leader, follower = start_pair(site)
        wait_for_sends(site, leader.pid)  # so it is not in the middle of the next one, which is far away

        leader.signal(signal.SIGSTOP)
        wait_for_sends(site, follower.pid, more=2)
        sent_before = len(senders(site))
        leader.signal(signal.SIGCONT)
        site.wait_for_signal("leader_deposed", pid=leader.pid)
        wait_for_sends(site, follower.pid, more=2)

        assert set(senders(site)[sent_before:]) == {follower.pid}
        assert not site.signals("leader_deposed", pid=follower.pid)
        leader.wait_for("no longer leading term")


def test_a_beat_that_was_paused_leads_again(site: Site) -> None:
    """15. While one beat lives, each entry is sent (late, not never): one that lost its term can be elected anew."""
    leader, follower = start_pair(site)
    leader.signal(signal.SIGSTOP)
    wait_for_sends(site, follower.pid)

    leader.signal(signal.SIGCONT)
    site.wait_for_signal("leader_deposed", pid=leader.pid)
    follower.signal(signal.SIGTERM)

    wait_for_sends(site, leader.pid, more=3)


def test_a_leader_whose_lease_was_taken_stops(site: Site) -> None:
    """14. Unsure means no: a leader that finds its lease gone stops, closes the inner scheduler, and observes."""
    leader, _ = start_pair(site)

    site.client.set("lock:{coord:leader:beat}", "somebody/0/else", px=600_000)
    site.wait_for_signal("leader_deposed", pid=leader.pid, why="gone")
    sent = len(wait_until_quiet(site))

    assert site.client.get("lock:{coord:leader:beat}") == "somebody/0/else"
    site.client.delete("lock:{coord:leader:beat}")
    wait_until(lambda: len(senders(site)) > sent, "one of them acts again")


def wait_until_quiet(site: Site) -> list[int]:
    """Until several instants of the schedule have passed without a message; what was sent until then."""
    seen, since = senders(site), time.monotonic()

    def is_quiet() -> bool:
        nonlocal seen, since
        if len(now := senders(site)) > len(seen):
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 1.0

    wait_until(is_quiet, "nobody sends")
    return seen


def test_beats_that_workers_embed_elect_a_leader_too(site: Site) -> None:
    """One leader for beat: of two `worker -B --scheduler celery_coord.beat:LeaderScheduler` one beat acts."""
    embedded = ("-B", "--scheduler", "celery_coord.beat:LeaderScheduler", "-X", "celery")  # leaves the queue alone
    workers = [site.worker("threads", *embedded) for _ in range(2)]
    for worker in workers:
        worker.wait_for(" ready.")
        worker.wait_for("beat: Starting")

    elected = site.wait_for_signal("leader_elected")
    wait_for_sends(site, elected["pid"], more=8)
    assert set(senders(site)) == {elected["pid"]}

    os.kill(elected["pid"], signal.SIGKILL)
    wait_until(lambda: len(site.signals("leader_elected")) > 1, "the other one takes over")
    wait_for_sends(site, site.signals("leader_elected")[-1]["pid"], more=2)


def test_the_short_name_of_the_scheduler_works(folder: Path, server: LocalServer) -> None:
    """`celery beat -S coord` is the same as `-S celery_coord.beat:LeaderScheduler`."""
    with Site(folder, beat_schedule=SCHEDULE) as site:
        beat = site.celery("beat", "-S", "coord", "--pidfile=", "-l", "INFO")

        site.wait_for_signal("leader_elected", pid=beat.pid)
        wait_for_sends(site, beat.pid, more=2)


def test_a_beat_waits_for_its_store(folder: Path, server: LocalServer) -> None:
    """14. Unsure means no; 15. late, not never: a beat starts while its store is away, and leads once it is there."""
    with reserved_port() as port, site_of_beats(folder, TTL, coord_url=f"redis://127.0.0.1:{port}/0") as site:
        beat = site.beat("beat")
        beat.wait_for("the store failed while campaigning for beat")
        assert senders(site) == []

        with LocalServer(port=port):
            wait_for_sends(site, beat.pid, more=2)
