"""Of the runs with equal keys one runs; the others are dropped, and leave no trace on the one that runs."""

from __future__ import annotations

import time

import pytest
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

from celery_coord import TaskDropped

pytestmark = pytest.mark.server

every_pool = pytest.mark.parametrize("site", ["prefork", "threads", "solo"], indirect=True)


def drop_of(result: AsyncResult) -> TaskDropped:
    """The drop that a run ended with."""
    with pytest.raises(TaskDropped) as caught:
        result.get(timeout=PATIENCE)
    return caught.value


@every_pool
def test_of_a_burst_of_equal_runs_one_runs_and_the_others_are_dropped(site: Site) -> None:
    """1. Of the runs with equal keys at most one holds the lease at any instant."""
    n = fresh_n()

    burst = [site.task("hold").delay(n) for _ in range(8)]
    wait_until(lambda: sum(run.state == "REVOKED" for run in burst) == 7, "seven are dropped")
    site.go(n)

    [ran] = [run for run in burst if run.state != "REVOKED"]
    assert ran.get(timeout=PATIENCE)["token"] > 0
    assert site.words(n) == ["begin", "end"]


@every_pool
def test_a_waiter_of_a_dropped_run_is_told_why(site: Site) -> None:
    """10. `.get()` on a dropped run comes to an end, promptly, with the reason: key, holder and time left."""
    n = fresh_n()

    with site.holding(n) as holder:
        dropped = site.task("step").delay(n)
        error = drop_of(dropped)

    assert isinstance(error, TaskRevokedError)
    assert dropped.state == "REVOKED"
    assert (error.reason, error.key) == ("held", f"n:{n}")
    assert error.holder.startswith(f"{holder.id}/")
    assert error.left is not None
    assert 0 < error.left <= 30


@every_pool
def test_different_arguments_run_side_by_side(site: Site) -> None:
    """1. Equal keys exclude each other; different ones do not."""
    one, other = fresh_n(), fresh_n()

    with site.holding(one), site.holding(other):
        assert site.words(one) == site.words(other) == ["begin"]

    assert site.words(one) == site.words(other) == ["begin", "end"]


@every_pool
def test_the_body_of_a_dropped_run_never_starts(site: Site) -> None:
    """2. The body of a refused run never starts."""
    n = fresh_n()

    with site.holding(n) as holder:
        drop_of(site.task("step").delay(n))
        drop_of(site.task("costly").delay(n))

    assert {told["id"] for told in site.story(n)} == {holder.id}


@every_pool
def test_a_dropped_run_leaves_the_holders_lease_as_it_is(site: Site) -> None:
    """2. A refused run touches nothing of the holder's."""
    n = fresh_n()
    names = site.lock_name(n), site.lease_name(n)

    with site.holding(n):
        looked_at = time.monotonic()
        lock, lease, left = site.client.get(names[0]), site.client.get(names[1]), site.client.pttl(names[0])
        for _ in range(3):
            drop_of(site.task("step").delay(n))

        assert site.client.get(names[0]) == lock
        assert site.client.get(names[1]) == lease
        left_then, passed = site.client.pttl(names[0]), (time.monotonic() - looked_at) * 1000
        assert left_then >= left - passed - 2  # milliseconds, rounded
        assert not site.client.exists(site.cooldown_name(n))


def test_a_dropped_run_leaves_the_lock_of_a_stranger_as_it_is(prefork: Site) -> None:
    """2. A refused run touches nothing of the holder's, whoever that is; it does not lengthen its lock either."""
    n = fresh_n()
    lock = prefork.lock_name(n)
    prefork.client.set(lock, "somebody else", px=600_000)

    error = drop_of(prefork.task("costly").delay(n))

    assert error.holder == "somebody else"
    assert prefork.client.get(lock) == "somebody else"
    assert 0 < prefork.client.pttl(lock) < 600_000
    assert not prefork.client.exists(prefork.lease_name(n), prefork.cooldown_name(n))


@every_pool
def test_each_holders_token_is_larger_than_every_earlier_one(site: Site) -> None:
    """1. Each holder's token is larger than every earlier one of that key, also after the store forgot the last one."""
    n = fresh_n()

    tokens = []
    for _ in range(6):
        tokens.append(site.task("step").delay(n).get(timeout=PATIENCE)["token"])
        if len(tokens) == 3:
            site.client.delete(site.lease_name(n))

    assert tokens == sorted(set(tokens))


@every_pool
def test_a_drop_is_never_silent(site: Site) -> None:
    """11. A drop is never silent: a state, a log line and a signal say why, who held the key, and for how long."""
    n = fresh_n()

    with site.holding(n) as holder:
        dropped = site.task("step").delay(n)
        said = site.wait_for_signal("task_dropped", task_id=dropped.id)
        wait_until(lambda: f"step[{dropped.id}] dropped: n:{n} is held by {holder.id}/" in site.output(), "a log line")
        wait_until(lambda: dropped.state == "REVOKED", "a state")

    assert (said["task"], said["reason"], said["key"]) == ("step", "held", f"n:{n}")
    assert said["holder"].startswith(f"{holder.id}/")
    assert said["label"].startswith("hold at ")
    assert 0 < said["left"] <= 30
