"""Children that a pool replaces connect anew, and leave nothing behind: neither a connection, nor a lease."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery.app.defaults import SETTING_KEYS
from local_processes import wait_until

from celery_coord.testing import LocalServer
from tests.processes.connections import Watcher, shared
from tests.processes.works import Works

pytestmark = pytest.mark.server

#: How this Celery makes the children of prefork.
METHODS = ("fork", "spawn") if "worker_pool_start_method" in SETTING_KEYS else ("fork",)
#: A child that has more than this is replaced, in KiB; `hoard` has.
ENOUGH = 160_000


@pytest.fixture(scope="module")
def works(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    """A worker for each way to make children, none of which lives for long."""
    with Works(tmp_path_factory.mktemp("children")) as works:
        for method in METHODS:
            conf = {"worker_pool_start_method": method} if len(METHODS) > 1 else {}
            short_lived = ("--max-tasks-per-child=2", f"--max-memory-per-child={ENOUGH}")
            works.start(method, "prefork", "-c", "2", *short_lived, **conf)
        yield works.ready()


@pytest.mark.parametrize("method", METHODS)
def test_children_that_have_had_their_tasks_are_followed_by_others_that_connect_anew(method: str, works: Works) -> None:
    """`worker_max_tasks_per_child`: the parent may be connected when it forks; its child has nothing of that."""
    pids = {came["pid"] for came in works.run(method, "visit", 6)}

    # A child that is just being made has not yet let go of its copies.
    now = wait_until(lambda: unshared(works.connections(method)), "no connection is shared")

    assert len(pids) >= 3
    assert {pid: ports for pid, ports in now.items() if len(ports) > 2} == {}


def unshared(ports: dict[int, set[int]]) -> dict[int, set[int]]:
    """The same, where no two processes share one; else nothing."""
    return {} if shared(ports) else ports


@pytest.mark.parametrize("method", METHODS)
def test_children_that_have_had_their_memory_leave_no_connection_behind(method: str, works: Works) -> None:
    """`worker_max_memory_per_child`: the server hears of each end."""
    pids = works.run(method, "hoard", 2)
    watcher = Watcher(works.store)

    def alone() -> bool:
        """Whether those who live are all that the server knows of."""
        alive = [ports for queue in works.workers for ports in works.connections(queue).values()]
        return watcher.ports() <= {port for ports in alive for port in ports}

    assert len(set(pids)) == 2
    wait_until(alone, "the server hears of the ends")
    watcher.close()
