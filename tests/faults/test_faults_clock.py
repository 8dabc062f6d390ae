"""The server's clock is set. To its keys that is as if they ended so much sooner, or later, and so they are made to."""

from __future__ import annotations

import pytest
from local_processes import wait_until
from scene import LONG, QUIET, Scene, grew

from celery_coord.gate import Admitted
from celery_coord.lease import Cooling, Held

HOUR = 3600.0


def set_back(scene: Scene, seconds: float) -> None:
    """Every key lasts for so much longer, and what was written down as the time then lies in the future."""
    for name in scene.client.scan_iter("*"):
        if (left := int(scene.client.pttl(name))) > 0:
            scene.client.pexpire(name, left + int(seconds * 1000))
    for name in scene.client.scan_iter("coord1-lease:*"):
        token, *rest = str(scene.client.get(name)).split("\n")
        later = int(token) + int(seconds * 1_000_000)
        scene.client.set(name, "\n".join([str(later), *rest]), keepttl=True)


def set_forward(scene: Scene, seconds: float) -> None:
    """Every key ends so much sooner."""
    for name in scene.client.scan_iter("*"):
        if (left := int(scene.client.pttl(name))) > 0:
            scene.client.pexpire(name, left - int(seconds * 1000))


def last_token(scene: Scene, key: str) -> int:
    return int(str(scene.client.get(f"coord1-lease:{{coord:{key}}}")).partition("\n")[0])


def test_tokens_grow_over_a_clock_that_was_set_back(scene: Scene) -> None:
    """1. The last token is kept for a day: the next is larger, whatever the clock says."""
    scene.process.ask("k")
    scene.process.coordination.store.clear("k")
    set_back(scene, HOUR)
    before = last_token(scene, "k")

    assert scene.process.begin("k").token > before


def test_a_holder_and_a_leader_go_on_over_a_clock_that_was_set_back(scene: Scene) -> None:
    """5. They count by their own clocks, and what they renew ends a ttl from then."""
    holder, leader = scene.process.begin("k"), scene.process.lead()
    term = leader.term

    set_back(scene, HOUR)

    for key in ("k", "leader:elected"):
        wait_until(lambda key=key: scene.client.pttl(f"lock:{{coord:{key}}}") < HOUR * 500, "a renewal")
    assert not holder.lost
    assert leader.term == term
    assert isinstance(holder.end(), Admitted)
    assert scene.is_cooling("k")


def test_what_nobody_renews_lasts_longer_where_the_clock_was_set_back(scene: Scene) -> None:
    """A quiet period does, and so does a dead holder's lease: by as much as the clock was set."""
    scene.process.ask("cooled")
    dead = scene.process.begin("dead", ttl=LONG)
    assert dead.holding
    scene.process.coordination.keeper.forget(dead.holding.lease.owner)

    set_back(scene, HOUR)

    cooling, held = scene.process.ask("cooled"), scene.process.ask("dead")
    assert isinstance(cooling, Cooling)
    assert grew(HOUR, cooling.left)
    assert isinstance(held, Held)
    assert grew(HOUR, held.left)


def test_a_holder_learns_that_the_clock_was_set_forward_at_its_next_renewal(scene: Scene) -> None:
    """Its lease has ended before its time: until then another can be admitted, with a larger token."""
    holder, leader = scene.process.begin("k"), scene.process.lead()
    term = leader.term

    set_forward(scene, HOUR)
    other = scene.another().begin("k", ttl=LONG)

    assert other.token > holder.token
    scene.process.wait_for("lease_lost", key="k", why="gone")
    scene.process.wait_for("leader_deposed", why="gone")
    assert grew(term, wait_until(lambda: leader.term, "elected anew"))
    assert isinstance(holder.end(), Admitted)
    assert not other.lost


def test_a_quiet_period_ends_where_the_clock_was_set_forward(scene: Scene) -> None:
    scene.process.ask("k")

    set_forward(scene, HOUR)

    assert HOUR > QUIET
    assert isinstance(scene.process.ask("k"), Admitted)


def test_a_body_whose_lease_ended_by_the_clock_leaves_no_quiet_period(scene: Scene) -> None:
    """12. It begins only if the lease was still ours."""
    ending = scene.process.begin("k", ttl=LONG)

    set_forward(scene, HOUR)

    assert isinstance(ending.end(), Admitted)
    assert scene.process.said("lease_outlived", key="k")
    assert not scene.is_cooling("k")


@pytest.mark.parametrize("seconds", [0.2, -0.2])
def test_a_clock_that_is_slewed_disturbs_nobody(scene: Scene, seconds: float) -> None:
    """What an NTP daemon corrects in one step is less than a lease lasts: it is renewed as ever."""
    holder, leader = scene.process.begin("k"), scene.process.lead()
    term = leader.term

    set_forward(scene, seconds)
    scene.wait_for_renewal("k")

    assert not holder.lost
    assert leader.term == term
