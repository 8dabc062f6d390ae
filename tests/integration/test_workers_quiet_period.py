"""The quiet period: it begins with the end of a good run, ends by itself, and keeps other runs away."""

from __future__ import annotations

import time

import pytest
from coord_site import Site, fresh_n
from local_processes import PATIENCE

from celery_coord import TaskDropped

pytestmark = pytest.mark.server

pools = pytest.mark.parametrize("site", ["prefork", "threads"], indirect=True)


@pools
def test_it_is_there_when_the_result_is(site: Site) -> None:
    """12. The cooldown begins in the same atomic step that ends the lease, and so before the result is visible."""
    for _ in range(10):
        n = fresh_n()
        site.task("costly").delay(n).get(timeout=PATIENCE)

        assert 0 < site.client.pttl(site.cooldown_name(n)) <= 60_000
        assert not site.client.exists(site.lock_name(n))


@pools
def test_a_run_meanwhile_is_dropped_as_cooling(site: Site) -> None:
    """A run that arrives while the cooldown exists is dropped; 11. and is told whose run left it, and for how long."""
    n = fresh_n()
    first = site.task("costly").delay(n)
    first.get(timeout=PATIENCE)

    with pytest.raises(TaskDropped) as caught:
        site.task("costly").delay(n).get(timeout=PATIENCE)

    assert (caught.value.reason, caught.value.key) == ("cooling", f"n:{n}")
    assert caught.value.holder.startswith(f"{first.id}/")
    assert caught.value.left is not None
    assert 0 < caught.value.left <= 60
    assert site.words(n) == ["begin", "end"]
    assert site.signals("task_dropped", key=f"n:{n}", reason="cooling")


def test_it_lasts_no_longer_for_being_run_into(prefork: Site) -> None:
    """2. A refused run touches nothing: the quiet period ends when it was to end."""
    n, name = (fresh := fresh_n()), prefork.cooldown_name(fresh)
    prefork.task("costly").delay(n).get(timeout=PATIENCE)
    left, owner = prefork.client.pttl(name), prefork.client.get(name)

    prefork.task("costly").delay(n).get(timeout=PATIENCE, propagate=False)

    assert prefork.client.get(name) == owner
    assert prefork.client.pttl(name) <= left


def test_it_ends_by_itself(prefork: Site) -> None:
    """13. The quiet period ends by itself: the store lets its key expire."""
    n = fresh_n()
    prefork.task("costly").delay(n).get(timeout=PATIENCE)
    prefork.client.delete(prefork.cooldown_name(n))  # as the expiry that it has would

    assert prefork.task("costly").delay(n).get(timeout=PATIENCE)


def test_it_belongs_to_the_key_and_to_tasks_that_have_one(prefork: Site) -> None:
    """A task on the same key without a cooldown of its own does not heed the quiet period."""
    n = fresh_n()
    prefork.task("costly").delay(n).get(timeout=PATIENCE)

    prefork.task("step").delay(n).get(timeout=PATIENCE)

    assert prefork.words(n) == ["begin", "end"] * 2


@pools
def test_a_run_that_failed_leaves_none(site: Site) -> None:
    """An expensive task leaves a cooldown when it ends well; when it fails, only if asked."""
    n = fresh_n()

    with pytest.raises(ValueError, match=n):
        site.task("costly").delay(n, fail=True).get(timeout=PATIENCE)

    assert not site.client.exists(site.cooldown_name(n), site.lock_name(n))
    assert site.task("costly").delay(n).get(timeout=PATIENCE)


def test_a_failure_leaves_the_one_that_was_asked_for(prefork: Site) -> None:
    """A failure leaves `on_failure`'s quiet period; jitter makes it longer by at most its part."""
    n = fresh_n()

    prefork.task("touchy").delay(n, fail=True).get(timeout=PATIENCE, propagate=False)

    assert 0 < prefork.client.pttl(prefork.cooldown_name(n)) <= 15_000


def test_jitter_never_makes_it_shorter(prefork: Site) -> None:
    """The period is made longer by a random part of up to its jitter, never shorter."""
    lengths = set()

    for _ in range(15):
        n, before = fresh_n(), time.monotonic()
        prefork.task("touchy").delay(n).get(timeout=PATIENCE)
        left = prefork.client.pttl(prefork.cooldown_name(n))
        assert left + (time.monotonic() - before) * 1000 >= 60_000
        assert left <= 90_000
        lengths.add(left // 100)

    assert len(lengths) > 1


def test_it_can_be_looked_at_from_elsewhere(prefork: Site) -> None:
    """13. It can be looked at."""
    n, costly = fresh_n(), prefork.task("costly")
    assert not costly.look(n)

    with prefork.holding(n, "costly", wait=True) as first:
        held = costly.look(n).held
    cooling = costly.look(n).cooling

    assert held.holder.startswith(f"{first.id}/")
    assert held.label.startswith("costly at ")
    assert cooling.holder == held.holder
    assert 0 < cooling.left <= 60
    assert costly.look(n).held is None


def test_it_can_be_cleared(prefork: Site) -> None:
    """13. It can be cleared; the next run is admitted."""
    n, costly = fresh_n(), prefork.task("costly")
    costly.delay(n).get(timeout=PATIENCE)

    assert costly.clear_cooldown(n) is True
    assert costly.clear_cooldown(n) is False

    assert costly.delay(n).get(timeout=PATIENCE)


def test_it_can_be_passed_by_for_one_call(prefork: Site) -> None:
    """13. It can be passed by for one call; the next one heeds it again."""
    n, costly = fresh_n(), prefork.task("costly")
    costly.delay(n).get(timeout=PATIENCE)

    assert costly.apply_async((n,), pass_cooldown=True).get(timeout=PATIENCE)

    with pytest.raises(TaskDropped, match="cooling"):
        costly.delay(n).get(timeout=PATIENCE)


def test_passing_it_by_does_not_pass_a_holder_by(prefork: Site) -> None:
    """1. A run that passes the quiet period by is dropped by a holder all the same."""
    n = fresh_n()

    with prefork.holding(n), pytest.raises(TaskDropped, match="held"):
        prefork.task("costly").apply_async((n,), pass_cooldown=True).get(timeout=PATIENCE)


@pools
def test_a_task_may_have_one_without_being_exclusive(site: Site) -> None:
    """A `CooldownTask` takes no lease: its runs go side by side, and then it is quiet."""
    n, pausing = fresh_n(), site.task("pausing")
    first, second = pausing.delay(n), pausing.delay(n)

    site.wait_for_word(n, "begin", times=2)
    assert not site.client.exists(site.lock_name(n), site.cooldown_name(n))
    site.go(n)

    assert first.get(timeout=PATIENCE)["token"] is None
    second.get(timeout=PATIENCE)
    with pytest.raises(TaskDropped, match="cooling"):
        pausing.delay(n).get(timeout=PATIENCE)
