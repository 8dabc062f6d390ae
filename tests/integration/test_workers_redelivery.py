"""A message that is delivered again is not dropped on account of its own earlier delivery."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from celery.result import AsyncResult
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

pytestmark = pytest.mark.server

#: What "within a second" is at most here, in seconds; much less than the lease lasts.
SOON = 10


def begin(site: Site, n: str) -> tuple[AsyncResult, dict[str, Any]]:
    """A run that has begun, and what its body told then."""
    run = site.task("durable").delay(n)
    return run, site.wait_for_word(n, "begin")


def test_the_work_of_a_killed_child_is_not_lost_and_its_key_is_free_at_once(prefork: Site) -> None:
    """4. Its key is free within a second while the worker's parent lives; 7. if the earlier delivery died, it runs."""
    n = fresh_n()
    run, begun = begin(prefork, n)
    [lease] = prefork.signals("lease_acquired", key=f"n:{n}")

    os.kill(begun["pid"], signal.SIGKILL)
    abandoned = prefork.wait_for_signal("lease_abandoned", key=f"n:{n}", timeout=SOON)
    prefork.wait_for_word(n, "begin", times=2)
    prefork.go(n)

    assert abandoned["owner"] == lease["owner"]
    assert abandoned["pid"] != begun["pid"]
    assert run.get(timeout=PATIENCE)["pid"] != begun["pid"]
    assert prefork.words(n) == ["begin", "begin", "end"]
    assert not prefork.signals("task_dropped", task_id=run.id)


def test_a_second_delivery_waits_for_the_first_and_ends_as_a_duplicate(prefork: Site) -> None:
    """7. While the earlier delivery lives the message waits, writing nothing under the task's id."""
    n = fresh_n()
    run, _ = begin(prefork, n)

    prefork.task("durable").apply_async((n,), task_id=run.id)
    prefork.wait_for_signal("task_deferred", task_id=run.id)
    assert run.state == "PENDING"
    prefork.go(n)
    value = run.get(timeout=PATIENCE)

    prefork.wait_for_signal("task_duplicate", task_id=run.id)
    assert prefork.words(n) == ["begin", "end"]
    assert AsyncResult(run.id, app=prefork.app).get(timeout=PATIENCE) == value
    assert not prefork.signals("task_dropped", task_id=run.id)


def test_a_stranger_is_dropped_while_the_second_delivery_waits(prefork: Site) -> None:
    """7. A message that waits holds nothing; the holder still excludes others."""
    n = fresh_n()
    run, _ = begin(prefork, n)

    prefork.task("durable").apply_async((n,), task_id=run.id)
    prefork.wait_for_signal("task_deferred", task_id=run.id)
    other = prefork.task("step").delay(n)
    wait_until(lambda: other.state == "REVOKED", "a stranger is dropped")
    prefork.go(n)

    assert run.get(timeout=PATIENCE)


def test_the_work_of_a_killed_child_is_not_lost_to_a_stranger_that_was_faster(prefork: Site) -> None:
    """7. If the earlier delivery died it runs: it waits for the run that took its key meanwhile, and is not dropped."""
    n = fresh_n()
    run, begun = begin(prefork, n)
    prefork.client.delete(prefork.lock_name(n))
    stranger = prefork.task("hold").delay(n)
    prefork.wait_for_word(n, "begin", times=2)

    os.kill(begun["pid"], signal.SIGKILL)
    waits = prefork.wait_for_signal("task_deferred", task_id=run.id)
    prefork.go(n)

    assert waits["why"] == "begun"
    assert stranger.get(timeout=PATIENCE)
    assert run.get(timeout=PATIENCE)
    assert prefork.words(n) == ["begin", "begin", "end", "begin", "end"]
    assert not prefork.signals("task_dropped", task_id=run.id)


def test_a_message_of_a_run_that_failed_runs_again(prefork: Site) -> None:
    """7. A message is never dropped on account of its own earlier delivery, also not of the quiet period it left."""
    n = fresh_n()
    touchy = prefork.task("touchy")
    failed = touchy.delay(n, fail=True)
    wait_until(lambda: failed.state == "FAILURE", "it has failed")
    assert prefork.client.exists(prefork.cooldown_name(n))

    touchy.apply_async((n,), task_id=failed.id)

    prefork.wait_for_word(n, "end")
    stranger = touchy.delay(n)
    wait_until(lambda: stranger.state == "REVOKED", "a stranger is dropped")


def test_a_run_that_could_not_tell_of_its_good_end_runs_again(prefork: Site) -> None:
    """7. If the earlier delivery succeeded and died before its result was stored, nobody is left waiting for that."""
    n = fresh_n()
    steady = prefork.task("steady")
    prefork.go(n)  # one that lasts for a third of its ttl, or is let wait for so long, is remembered as told
    ended = steady.delay(n)
    ended.get(timeout=PATIENCE)
    prefork.client.delete(f"celery-task-meta-{ended.id}")  # as if it had never been stored

    steady.apply_async((n,), task_id=ended.id)
    again = prefork.wait_for_signal("task_deferred", task_id=ended.id)

    assert again["why"] == "untold"  # its process may be about to store it, for as long as its lease would have lasted
    prefork.wait_for_word(n, "begin", times=2)
    assert AsyncResult(ended.id, app=prefork.app).get(timeout=PATIENCE)


@pytest.mark.parametrize("linked", [False, True])
def test_a_run_that_keeps_no_result_is_known_as_done(prefork: Site, linked: bool) -> None:
    """7. If the earlier delivery succeeded the message ends as a duplicate, though no result says so."""
    n, after = fresh_n(), fresh_n()
    mute, note = prefork.task("mute"), prefork.task("note")
    prefork.go(n)
    done = mute.apply_async((n,), link=note.si(after) if linked else None)
    done_name = f"coord1-done:{{coord:n:{n}}}:{done.id}"
    wait_until(lambda: prefork.client.exists(done_name), "it is remembered as done")

    mute.apply_async((n,), task_id=done.id, link=note.si(after) if linked else None)
    prefork.wait_for_signal("task_duplicate", task_id=done.id)

    assert prefork.words(n) == ["begin", "end"]
    if linked:
        prefork.wait_for_word(after, "note")
    assert prefork.words(after) == ["note"] * linked
    assert 3600 < prefork.client.ttl(done_name) <= 4200


def test_a_late_copy_that_a_stranger_keeps_out_leaves_the_result_alone(prefork: Site) -> None:
    """7. A redelivered message writes nothing where its earlier delivery has told of its end, whoever holds the key."""
    n = fresh_n()
    hold = prefork.task("hold")
    with prefork.holding(n) as ended:
        pass
    prefork.client.delete(f"coord1-done:{{coord:n:{n}}}:{ended.id}")  # so late that it is not remembered any more

    with prefork.holding(n):
        hold.apply_async((n,), task_id=ended.id, headers={"coord_met_itself": True})
        prefork.wait_for_signal("task_duplicate", task_id=ended.id)

    assert ended.state == "SUCCESS"
    assert not prefork.signals("task_dropped", task_id=ended.id)
