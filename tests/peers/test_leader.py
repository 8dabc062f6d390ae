"""What other libraries for one leading beat do wrong, each named after what it prevents here.

The docstrings say what was measured with whom.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from local_processes import CeleryProcess, wait_until
from peers_project import PeersSite

from celery_coord.testing import LocalServer
from tests.faults.proxy import reserved

pytestmark = pytest.mark.server

#: Short, since tests wait for its end; and longer than a beat is kept waiting by a busy machine, or another would lead.
TTL = 5.0
LOCK = "lock:{coord:leader:beat}"
OFTEN = {"often": {"task": "note", "schedule": 0.1, "args": ["tick"]}}
#: So many entries come due at one instant, and the next such instant is so far away.
MANY, EVERY = 20, 2.0
BURSTS = {f"entry-{number}": {"task": "note", "schedule": EVERY, "args": ["tick"]} for number in range(MANY)}


class Beats:
    """Beats, and what they send: nobody takes it from the queue, so that it can be counted.

    The broker, which is the store too, is a server of its own: what the beats tell is kept while it is away.
    """

    def __init__(self, folder: Path, server: LocalServer, **conf: Any) -> None:
        self.server = server
        urls = {"broker_url": server.url, "result_backend": server.url, "coord_url": server.url}
        self.site = PeersSite(folder, **urls, **conf)
        self.client = redis.Redis.from_url(server.url, decode_responses=True)

    def start(self, name: str, **conf: Any) -> CeleryProcess:
        """Start a beat, and wait until its loop runs."""
        beat = self.site.beat(name, **conf)
        beat.wait_for("beat: Starting")
        return beat

    def leader_and_follower(self) -> tuple[CeleryProcess, CeleryProcess]:
        """A beat that leads, and one that has seen that it does not."""
        leader = self.start("leader")
        self.site.wait_for_signal("leader_elected", pid=leader.pid)
        follower = self.start("follower")
        self.site.wait_for_signal("leader_observed", pid=follower.pid)
        self.wait_for_sends(leader.pid)
        return leader, follower

    def sent(self) -> list[tuple[int, int]]:
        """The term in which each message was sent, and the process that sent it, in order."""
        headers = [json.loads(sent)["headers"] for sent in reversed(self.client.lrange("celery", 0, -1))]
        return [
            (one["coord_beat"]["term"], int(one["origin"].partition("@")[0].removeprefix("gen"))) for one in headers
        ]

    def senders(self) -> list[int]:
        """The process that sent each message, in order."""
        return [pid for _, pid in self.sent()]

    def wait_for_sends(self, pid: int, *, more: int = 1, timeout: float = 60.0) -> None:
        """Until a process has sent so many more."""
        so_far = self.senders().count(pid)
        wait_until(lambda: self.senders().count(pid) >= so_far + more, f"{pid} sends {more} more", timeout=timeout)

    def first_term(self, pid: int) -> int:
        """The first term in which a process led."""
        return int(self.site.wait_for_signal("leader_elected", pid=pid)["term"])

    def leader(self) -> int:
        """The process that was elected last."""
        return int(self.site.signals("leader_elected")[-1]["pid"])

    def assert_one_publishes(self, *, after: int, but: int = 0) -> None:
        """One at a time has sent what stands behind so many messages, each in a term of its own, and none is `but`."""
        sent = self.sent()[after:]
        assert [term for term, _ in sent] == sorted(term for term, _ in sent)
        assert len(set(sent)) == len({term for term, _ in sent})
        assert but not in {pid for _, pid in sent}

    def close(self) -> None:
        self.client.close()
        self.site.close()


@pytest.fixture
def store(server: LocalServer) -> Iterator[LocalServer]:
    """The beats' server: it can be stopped."""
    with reserved() as port, LocalServer(port=port.getsockname()[1]) as store:
        yield store


@pytest.fixture
def beats(request: pytest.FixtureRequest, tmp_path: Path, store: LocalServer) -> Iterator[Beats]:
    """A place for beats; the parameter has its settings in place of a short ttl."""
    conf = {"beat_schedule": OFTEN, **getattr(request, "param", {"coord_leader_ttl": TTL})}
    made = Beats(tmp_path, store, **conf)
    yield made
    made.close()


def is_running(beat: CeleryProcess) -> bool:
    """Whether a process is there, and is no mere remnant that nobody has waited for."""
    with pytest.raises(AssertionError, match="still runs"):
        beat.wait(timeout=0.01)
    return True


@pytest.mark.parametrize("beats", [{}], indirect=True)
def test_the_default_lease_is_short_and_its_end_is_seen_at_once(beats: Beats) -> None:
    """16. celery-redbeat: by default the lease lasts 25 minutes, and followers look every 5 minutes."""
    leader, follower = beats.leader_and_follower()

    assert 0 < beats.client.pttl(LOCK) <= 10_000
    leader.signal(signal.SIGKILL)
    leader.wait()
    beats.client.delete(LOCK)  # as if its lease had ended

    beats.site.wait_for_signal("leader_elected", pid=follower.pid, timeout=5)


@pytest.mark.parametrize("beats", [{}], indirect=True)
def test_a_beat_does_not_exit_when_its_lease_is_lost(beats: Beats) -> None:
    """14. celery-redbeat: a beat that found its lock gone ended with an exception."""
    beat = beats.start("beat")
    beats.wait_for_sends(beat.pid)

    beats.client.set(LOCK, "somebody/0/else", px=600_000)
    beats.site.wait_for_signal("leader_deposed", pid=beat.pid, why="gone")
    assert is_running(beat)
    beats.client.delete(LOCK)

    beats.wait_for_sends(beat.pid, more=3)
    assert is_running(beat)


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_a_beat_does_not_exit_when_its_store_is_away(beats: Beats, store: LocalServer, how: str) -> None:
    """15. celery-redbeat: a beat whose Redis was away for 4 s ended. Here it follows, and leads again."""
    beat = beats.start("beat")
    beats.wait_for_sends(beat.pid)

    if how == "stopped":
        store.stop()
    else:
        assert store.pid
        os.kill(store.pid, signal.SIGSTOP)
    beats.site.wait_for_signal("leader_deposed", pid=beat.pid, why="unrenewed")
    time.sleep(5)  # it is the length of the absence that ended the other one
    assert is_running(beat)
    if how == "stopped":
        store.start()
    else:
        os.kill(store.pid, signal.SIGCONT)

    beats.wait_for_sends(beat.pid, more=3)
    assert is_running(beat)


@pytest.mark.parametrize("beats", [{"beat_schedule": BURSTS, "coord_leader_ttl": TTL}], indirect=True)
def test_a_stalled_leader_sends_nothing_that_it_no_longer_owns(beats: Beats) -> None:
    """14. celery-redbeat: a leader that was stalled beyond its lease sent 19 tasks as it woke; others had sent them."""
    leader, follower = beats.leader_and_follower()
    so_far = len(beats.senders())
    wait_until(lambda: len(sent := beats.senders()) > so_far and len(sent) % MANY == 0, "the end of a burst")
    leader.signal(signal.SIGSTOP)
    beats.wait_for_sends(follower.pid, more=MANY)
    sent_by_it = [(term, pid) for term, pid in beats.sent() if pid == leader.pid]

    leader.signal(signal.SIGCONT)
    beats.site.wait_for_signal("leader_deposed", pid=leader.pid)
    so_far = len(beats.sent())
    wait_until(lambda: len(beats.sent()) >= so_far + MANY, "somebody sends", timeout=60)

    old_terms = {term for term, _ in sent_by_it}  # if the follower was paused in turn, it leads by right again
    assert [(term, pid) for term, pid in beats.sent() if pid == leader.pid and term in old_terms] == sent_by_it
    assert is_running(leader)


def test_a_take_over_is_a_matter_of_the_ttl_and_terms_grow(beats: Beats) -> None:
    """16. celery-multibeat-scheduler: a take-over took up to 90 s, and no number told an old leader from a new one."""
    leader, follower = beats.leader_and_follower()

    killed_at = time.time()
    leader.signal(signal.SIGKILL)
    elected = beats.site.wait_for_signal("leader_elected", pid=follower.pid)
    beats.wait_for_sends(follower.pid, more=3)

    assert elected["at"] - killed_at <= TTL + 5  # the promise is a second; the machine may be busy
    assert 0 < beats.first_term(leader.pid) < elected["term"]


def test_terms_grow_though_the_store_forgets(beats: Beats) -> None:
    """1. celery-multibeat-scheduler: no fencing token. Here it grows even where the store lost the last one."""
    leader, follower = beats.leader_and_follower()

    leader.signal(signal.SIGKILL)
    leader.wait()
    beats.client.flushall()
    beats.site.wait_for_signal("leader_elected", pid=follower.pid)

    assert beats.first_term(leader.pid) < beats.first_term(follower.pid)


def test_a_leading_beat_needs_no_django() -> None:
    """celery-multibeat-scheduler works in a Django project alone."""
    without = "import sys; sys.modules['django'] = None; import celery_coord.beat"

    subprocess.run([sys.executable, "-c", without], check=True)


@pytest.mark.parametrize("killed", ["leader", "follower"])
def test_a_killed_beat_leaves_one_that_publishes(beats: Beats, killed: str) -> None:
    """14. single-beat: after the process that watched over a beat was killed, two beats published."""
    leader, follower = beats.leader_and_follower()
    dead = leader if killed == "leader" else follower

    dead.signal(signal.SIGKILL)
    dead.wait()
    beats.start("third")
    wait_until(lambda: beats.leader() != dead.pid, "one that lives is elected")
    so_far = len(beats.sent())
    wait_until(lambda: len(beats.sent()) >= so_far + 15, "somebody publishes")

    beats.assert_one_publishes(after=so_far, but=dead.pid)


def test_an_orphan_of_a_killed_worker_is_not_a_second_beat_that_publishes(beats: Beats) -> None:
    """14. single-beat: as above. Here a worker started the beat, and left it behind as it was killed.

    Either the orphan goes on and the new beat follows, or it is gone and the new one leads: one of them publishes.
    """
    embedded = ("-B", "--scheduler", "celery_coord.beat:LeaderScheduler", "-X", "celery")  # leaves the queue alone
    worker = beats.site.worker("prefork", *embedded)
    worker.wait_for(" ready.")
    orphan = beats.site.wait_for_signal("leader_elected")["pid"]
    beats.wait_for_sends(orphan)

    assert orphan != worker.pid
    worker.signal(signal.SIGKILL)
    worker.wait()
    beat = beats.start("beat")
    wait_until(
        lambda: (
            beats.site.signals("leader_observed", pid=beat.pid) or beats.site.signals("leader_elected", pid=beat.pid)
        ),
        "it knows who leads",
    )
    so_far = len(beats.senders())
    wait_until(lambda: len(beats.senders()) >= so_far + 15, "somebody publishes")

    beats.assert_one_publishes(after=so_far)
    if beats.senders()[-1] == orphan:
        with suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)
        beats.wait_for_sends(beat.pid, more=3)
