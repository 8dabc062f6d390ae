"""A server whose memory is full, and that evicts nothing: it refuses whatever takes room."""

from __future__ import annotations

import re

import pytest
from local_processes import wait_until
from scene import LONG, Scene
from troubles import FULL

from celery_coord.errors import StoreError
from celery_coord.gate import Admitted, Kind, Unanswered

#: As Redis 6.2 says it, and later ones.
NO_ROOM = "OOM|OutOfMemory"


def test_nobody_is_admitted_unguarded_while_the_memory_is_full(scene: Scene) -> None:
    """9. The run is neither dropped nor let through."""
    with FULL.happens(scene):
        asked = scene.process.ask("k")

    assert isinstance(asked, Unanswered)
    assert re.search(NO_ROOM, str(asked.error))
    assert isinstance(scene.process.ask("k"), Admitted)


def test_a_holder_is_renewed_and_a_leader_leads_while_the_memory_is_full(scene: Scene) -> None:
    """5. To let a lease last takes no room."""
    holder, leader = scene.process.begin("k"), scene.process.lead()
    term = leader.term

    with FULL.happens(scene):
        for _ in range(2):
            scene.wait_for_renewal("k")
            scene.wait_for_renewal("leader:elected")

    assert not holder.lost
    assert leader.term == term


def test_a_body_that_ends_is_settled_when_there_is_room_again(scene: Scene) -> None:
    """12. To remember an end takes room: nothing of the act is done without it, and all of it when there is."""
    ending = scene.process.begin("k", ttl=LONG)
    owner = scene.lock("k")

    with FULL.happens(scene):
        assert isinstance(ending.end(), Admitted)
        scene.process.wait_for("store_failed", doing="settling k")
        assert scene.lock("k") == owner

    wait_until(lambda: scene.lock("k") is None, "the lease is ended", timeout=LONG / 2)
    assert scene.is_cooling("k")


def test_a_lease_whose_body_failed_is_given_back_though_the_memory_is_full(scene: Scene) -> None:
    """4. To end a lease takes no room where nothing is to be remembered of it."""
    ending = scene.process.begin("k", ttl=LONG, kind=Kind.FAILED)

    with FULL.happens(scene):
        ending.end()

        assert scene.lock("k") is None


def test_a_leader_writes_nothing_down_while_the_memory_is_full(scene: Scene) -> None:
    """15. So a beat sends nothing that it could not claim."""
    leader = scene.process.lead(ttl=LONG)
    assert leader.lease

    with FULL.happens(scene), pytest.raises(StoreError, match=NO_ROOM):
        scene.process.coordination.store.record(leader.lease, "run:entry", "1.0 1")
