"""Code outside Celery takes the same lock: a `redis_lock.Lock`, with the real library on both sides."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis_lock
from coord_site import Site, fresh_n
from local_processes import PATIENCE

from celery_coord import TaskDropped
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server


def test_runs_are_dropped_while_it_is_held_outside(prefork: Site) -> None:
    """`task.lock(*args)` gives code outside Celery the same lock: while that is held, runs are dropped."""
    n, step = fresh_n(), prefork.task("step")

    with step.lock(n) as lock, pytest.raises(TaskDropped) as caught:
        step.delay(n).get(timeout=PATIENCE)

    assert isinstance(lock, redis_lock.Lock)
    assert caught.value.holder.startswith("lock@")
    assert step.delay(n).get(timeout=PATIENCE)


def test_it_is_refused_while_a_run_holds(prefork: Site) -> None:
    """While a run holds the key, the lock is not to be had; nor is it for another key's sake."""
    n, step = fresh_n(), prefork.task("step")

    with prefork.holding(n):
        assert step.lock(n).acquire(blocking=False) is False
        other = step.lock(fresh_n())
        assert other.acquire(blocking=False) is True
        other.release()

    lock = step.lock(n)
    assert lock.acquire(blocking=False) is True
    lock.release()


def test_who_waits_for_it_is_woken_when_the_run_ends(prefork: Site) -> None:
    """Both sides wake each other: a blocking acquire has the lock long before the run's lease would have expired."""
    n = fresh_n()
    lock = prefork.task("step").lock(n)

    with ThreadPoolExecutor(1) as pool:
        with prefork.holding(n):
            waiting = pool.submit(lock.acquire, blocking=True, timeout=25)
        assert waiting.result(timeout=10) is True

    lock.release()


def test_who_waits_for_it_may_wait_longer_than_the_store_may_take_to_answer(folder: Path, server: LocalServer) -> None:
    """A blocking acquire of `task.lock(...)` waits as a `redis_lock.Lock` does, whatever `coord_store_timeout` is."""
    with Site(folder, coord_store_timeout=3) as site:
        n = fresh_n()
        holder = redis_lock.Lock(site.client, f"{{coord:n:{n}}}", expire=30)
        holder.acquire()

        assert site.task("step").lock(n).acquire(blocking=True, timeout=5) is False

        holder.release()


def test_a_lock_that_was_made_by_hand_excludes_runs(prefork: Site) -> None:
    """The lock on the wire is a python-redis-lock lock: one made by hand on the same name excludes runs."""
    n, step = fresh_n(), prefork.task("step")
    by_hand = redis_lock.Lock(prefork.client, f"{{coord:n:{n}}}", expire=30, id="a cron job")

    with by_hand, pytest.raises(TaskDropped) as caught:
        step.delay(n).get(timeout=PATIENCE)

    assert caught.value.holder == "a cron job"
    assert step.delay(n).get(timeout=PATIENCE)


def test_a_lock_that_was_made_by_hand_is_refused_and_woken(prefork: Site) -> None:
    """The lock on the wire is a python-redis-lock lock: one made by hand waits for a run, and is woken by its end."""
    n = fresh_n()
    by_hand = redis_lock.Lock(prefork.client, f"{{coord:n:{n}}}", expire=30)

    with ThreadPoolExecutor(1) as pool:
        with prefork.holding(n):
            assert by_hand.acquire(blocking=False) is False
            waiting = pool.submit(by_hand.acquire, blocking=True, timeout=25)
        assert waiting.result(timeout=10) is True

    by_hand.release()
