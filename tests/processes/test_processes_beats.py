"""A beat has few connections, whether it leads, follows, or does the one after the other."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from local_processes import wait_until

from celery_coord.testing import LocalServer
from tests.processes.works import Works

pytestmark = pytest.mark.server

#: What each says in its log.
ELECTED, OBSERVED = "beat: elected, term ", "beat: following "
#: A leader has one by which it renews, one for what else the candidate asks, and one for what the loop does.
LEADS = 3
#: A follower has one by which it asks for the leadership, and one to wait for the leader's end.
FOLLOWS = 2
#: That one stays with a follower that is elected.
FOLLOWED_AND_LEADS = LEADS + 1
#: Many entries come due at once, and often; the leader renews three times in a ttl.
EVERY, TTL = 0.2, 6
SCHEDULE = {f"often {number}": {"task": "note", "schedule": EVERY} for number in range(20)}
#: While so many messages are sent, which takes a ttl, the connections are looked at.
SENT = len(SCHEDULE) * TTL / EVERY


@pytest.fixture
def works(server: LocalServer, tmp_path: Path) -> Iterator[Works]:
    """No workers: what is sent stays in the queue."""
    with Works(tmp_path, beat_schedule=SCHEDULE, coord_leader_ttl=TTL) as works:
        yield works


def most_connections(works: Works, *beats: str) -> dict[str, int]:
    """How many each has at most, while the leader is at work."""
    most = dict.fromkeys(beats, 0)
    with redis.Redis.from_url(works.broker.url) as queue:
        before = queue.llen("celery")

        def are_sent() -> bool:
            for beat in beats:
                most[beat] = max(most[beat], *map(len, works.connections(beat).values()))
            return queue.llen("celery") >= before + SENT

        wait_until(are_sent, "the leader sends", timeout=60)
    return most


def test_a_beat_has_few_connections_also_where_it_followed_before_it_leads(works: Works) -> None:
    """One pool of connections for each process, as the system counts them."""
    leader = works.beat("leader")
    leader.wait_for(ELECTED)
    follower = works.beat("follower")
    follower.wait_for(OBSERVED)

    beside = most_connections(works, "leader", "follower")
    leader.signal(signal.SIGTERM)
    follower.wait_for(ELECTED)
    after = most_connections(works, "follower")

    assert 0 < beside["leader"] <= LEADS
    assert 0 < beside["follower"] <= FOLLOWS
    assert 0 < after["follower"] <= FOLLOWED_AND_LEADS
