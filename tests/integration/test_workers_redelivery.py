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


def begin(site: Site, n: str) -> tuple[AsyncResult, dict[str, Any]]:
    """A run that has begun, and what its body told then."""
    run = site.task("durable").delay(n)
    return run, site.wait_for_word(n, "begin")


def wait_for_deferral(site: Site, n: str, run: AsyncResult) -> dict[str, Any]:
    """Until the message has met the lease of its earlier delivery, which is kept alive: a death may be noticed late."""
    lock = site.lock_name(n)
    wait_until(
        lambda: site.client.pexpire(lock, 1500) and site.signals("task_deferred", task_id=run.id), "it is deferred"
    )
    return site.signals("task_deferred", task_id=run.id)[0]


def test_the_work_of_a_killed_child_is_not_lost(prefork: Site) -> None:
    """7. A redelivered message waits for the lease of its dead delivery, writing nothing; then it runs."""
    n = fresh_n()
    run, begun = begin(prefork, n)

    os.kill(begun["pid"], signal.SIGKILL)
    waits = wait_for_deferral(prefork, n, run)
    written = run.state
    prefork.go(n)

    assert waits["why"] == "redelivered"
    assert written == "PENDING"
    assert run.get(timeout=PATIENCE)["pid"] != begun["pid"]
    assert prefork.words(n) == ["begin", "begin", "end"]
    assert not prefork.signals("task_dropped", task_id=run.id)


def test_a_redelivered_message_runs_once_the_key_is_free(prefork: Site) -> None:
    """7. If the earlier delivery died, and its lease has ended, the message runs."""
    n = fresh_n()
    run, begun = begin(prefork, n)

    os.kill(begun["pid"], signal.SIGKILL)
    prefork.client.delete(prefork.lock_name(n))
    prefork.wait_for_word(n, "begin", times=2)
    prefork.go(n)

    assert run.get(timeout=PATIENCE)
    assert prefork.words(n) == ["begin", "begin", "end"]


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
