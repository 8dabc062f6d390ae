"""That the store answers again is told once, whatever it was asked in vain, and whatever it is asked next."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from local_processes import wait_until
from scene import LONG, Scene

from celery_coord.gate import Admitted
from celery_coord.worker import check


def starts(scene: Scene) -> None:
    with scene.stopped():
        check(scene.process.app)


def loses_a_lease(scene: Scene) -> None:
    holder = scene.process.begin("k")
    scene.proxy.die()
    holder.wait_until_lost()
    scene.process.wait_for("lease_lost", key="k")  # the keeper asks for it no more
    scene.proxy.heal()


def asks(scene: Scene) -> None:
    keeper = scene.process.coordination.keeper
    scene.proxy.die()
    scene.process.ask("k")
    wait_until(lambda: keeper._later_not_before, "the keeper has asked in vain, too")
    scene.proxy.heal()


def ends_a_body(scene: Scene) -> None:
    body = scene.process.begin("k", ttl=LONG)
    scene.proxy.die()
    body.end()
    scene.proxy.heal()


TROUBLED = {"starts": starts, "loses a lease": loses_a_lease, "asks": asks, "ends a body": ends_a_body}


@pytest.mark.parametrize("troubled", TROUBLED.values(), ids=TROUBLED)
def test_a_process_that_is_served_again_says_so_once(scene: Scene, troubled: Callable[[Scene], None]) -> None:
    """Also where what it asked in vain is never asked again: it starts once, and a lost lease is not renewed."""
    troubled(scene)

    assert isinstance(scene.process.ask("another"), Admitted)

    wait_until(lambda: scene.process.said("store_recovered"), "it says so")
    assert isinstance(scene.process.ask("one more"), Admitted)
    assert len(scene.process.said("store_recovered")) == 1


def test_a_server_that_reads_and_does_not_write_has_not_recovered(scene: Scene) -> None:
    """It answers those who look; runs are still put off."""
    scene.client.config_set("maxmemory", 1)
    scene.process.ask("k")

    scene.process.coordination.store.look("k")

    assert not scene.process.said("store_recovered")
