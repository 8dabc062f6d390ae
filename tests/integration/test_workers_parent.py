"""What the worker's parent process does for a child that died, and what it never does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from celery.worker.request import Request as CeleryRequest
from coord_project import make_app
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

from celery_coord import ExclusiveTask
from celery_coord.delivery import Request
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server


def test_hooks_never_wait_in_the_parent(folder: Path) -> None:
    """4. The parent frees a dead child's key; while the store does not answer that, the parent goes on as ever."""
    n, other = fresh_n(), fresh_n()
    with LocalServer() as store, Site(folder, coord_url=store.url, coord_store_timeout=3 * PATIENCE) as site:
        [worker] = site.ready_workers("prefork")
        site.task("durable").delay(n)
        begun = site.wait_for_word(n, "begin")

        os.kill(store.pid, signal.SIGSTOP)
        os.kill(begun["pid"], signal.SIGKILL)
        wait_until(lambda: f"pid:{begun['pid']} exited" in worker.output, "the pool has noticed")

        assert site.task("note").delay(other).get(timeout=PATIENCE) == other
        os.kill(store.pid, signal.SIGCONT)


def test_hooks_never_raise_in_the_parent(prefork: Site) -> None:
    """4. A key that cannot be computed in the parent is told; the lease ends by itself, and the worker goes on."""
    n, other = fresh_n(), fresh_n()
    run = prefork.task("childish").delay(n)
    begun = prefork.wait_for_word(n, "begin")

    os.kill(begun["pid"], signal.SIGKILL)
    failed = prefork.wait_for_signal("store_failed", doing=f"abandoning childish[{run.id}]")

    assert failed["error"] == "RuntimeError: not in the parent"
    assert prefork.task("note").delay(other).get(timeout=PATIENCE) == other


def test_the_parent_takes_nothing_from_a_body_that_still_runs(prefork: Site) -> None:
    """1. At most one holds the lease: a time limit is announced while the child lives, and the key is freed after."""
    n = fresh_n()
    prefork.task("stubborn").delay(n)
    begun = prefork.wait_for_word(n, "begin")

    abandoned = prefork.wait_for_signal("lease_abandoned", key=f"n:{n}")

    # The child told how long it lived: it looks at the clock until it is killed, and hears no SIGTERM.
    assert abandoned["pid"] != begun["pid"]
    assert float(prefork.client.get(f"alive:{n}")) <= abandoned["at"]


def test_a_child_that_ended_its_run_has_nothing_to_abandon(prefork: Site) -> None:
    """6. Only the owner's own lease is ever abandoned: a child that dies later leaves the key's next holder alone."""
    n = fresh_n()
    done = prefork.task("step").delay(n).get(timeout=PATIENCE)

    with prefork.holding(n) as running:
        holder = prefork.client.get(prefork.lock_name(n))
        if prefork.story(n)[-1]["pid"] != done["pid"]:
            os.kill(done["pid"], signal.SIGKILL)
            wait_until(lambda: f"pid:{done['pid']} exited" in prefork.output(), "the pool has noticed")
        assert prefork.client.get(prefork.lock_name(n)) == holder

    assert running.state == "SUCCESS"
    assert not prefork.signals("lease_abandoned", key=f"n:{n}")


def test_a_users_own_request_class_does_what_ours_does_as_well() -> None:
    """4. ... also of a task whose request class is its own."""

    class Theirs(CeleryRequest):  # type: ignore[misc]
        pass

    class OursAlready(Request):
        pass

    with make_app(coord_url="memory://") as app:

        @app.task(base=ExclusiveTask, Request=Theirs, shared=False)
        def mixed() -> None: ...

        @app.task(base=ExclusiveTask, Request=OursAlready, shared=False)
        def kept() -> None: ...

        app.finalize()

        assert issubclass(mixed.Request, Request)
        assert issubclass(mixed.Request, Theirs)
        assert kept.Request is OursAlready
