"""In every pool each process has connections of its own, and few of them, however busy it is and after an outage."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest
import redis
from celery.result import AsyncResult
from local_processes import wait_until

from celery_coord.testing import LocalServer
from tests.processes.connections import Watcher, shared
from tests.processes.works import Works, results_of

pytestmark = pytest.mark.server

#: How many runs the worker of each pool has at once.
POOLS = {"prefork": 2, "threads": 50, "gevent": 200, "eventlet": 200, "solo": 1}
#: A process has so many connections for its short acts, one for its keeper, and may be about to close one.
AT_ONCE = {pool: 2 if number <= 2 else 12 for pool, number in POOLS.items()}
#: Where one task runs at a time: one for the task, one by which the keeper renews, and one for what it does later.
AFTER_AN_OUTAGE = 3
#: For how long the store lets all who ask wait at the same time, in milliseconds; less than `coord_store_timeout`.
CROWDED = 700
#: The same, so that what the keeper does later, once a second, is among them.
UNTIL_LATER = 1500


@pytest.fixture(scope="module")
def works(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Works]:
    """A worker of each pool."""
    # What a worker with so many greenlets is told to set as it starts: kombu loses messages without it.
    broker = {"max_connections": max(POOLS.values()) + 5}
    with Works(tmp_path_factory.mktemp("pools"), broker_transport_options=broker) as works:
        for pool, number in POOLS.items():
            works.start(pool, pool, "-c", str(number))
        yield works.ready()


@pytest.fixture
def watcher(works: Works) -> Iterator[Watcher]:
    found = Watcher(works.store)
    yield found
    found.close()


def crowd(watcher: Watcher) -> None:
    """Let all who ask the store from now on wait for the same instant, so that they ask at once."""
    watcher.client.execute_command("CLIENT", "PAUSE", CROWDED, "WRITE")


def hold(works: Works, pool: str) -> list[AsyncResult]:
    """Runs that stay, and have begun; as many as the worker has at once."""
    begun = len(works.stays())
    runs = works.send(pool, "stay", POOLS[pool])
    works.wait_for_stays(begun + POOLS[pool])
    return runs


def let_go(works: Works, runs: list[AsyncResult]) -> set[int]:
    """Let them end.

    Returns:
        The processes in which they were.
    """
    works.go()
    ended = set(results_of(runs))
    (works.folder / "go").unlink()
    return ended


def most_connections(works: Works, pool: str, runs: list[AsyncResult]) -> Counter[int]:
    """Until these runs have ended, how many connections each process of a worker has at most."""
    most: Counter[int] = Counter()

    def have_ended() -> bool:
        for pid, ports in works.connections(pool).items():
            most[pid] = max(most[pid], len(ports))
        return all(run.ready() for run in runs)

    wait_until(have_ended, f"{len(runs)} runs end in {pool}", timeout=60)
    have_ended()  # once more: who was not looked at while they ran keeps a connection all the same
    return most


@pytest.mark.parametrize("pool", POOLS)
def test_a_busy_process_has_few_connections(pool: str, works: Works, watcher: Watcher) -> None:
    """One small pool of connections for each process, as the system and the server count them."""
    crowd(watcher)
    runs = works.send(pool, "visit", POOLS[pool] * 2)

    most = most_connections(works, pool, runs)

    pids = {came["pid"] for came in results_of(runs)}
    assert pids <= set(most)
    assert all(most[pid] > 0 for pid in pids)
    assert {pid: number for pid, number in most.items() if number > AT_ONCE[pool]} == {}


def test_no_two_processes_share_a_connection(works: Works, watcher: Watcher) -> None:
    """Of all workers, parents and children: what the system shows is what the server lists."""
    for pool in POOLS:
        works.run(pool, "visit")

    def known() -> dict[int, set[int]]:
        ports = {pid: found for pool in POOLS for pid, found in works.connections(pool).items()}
        return ports if set().union(*ports.values()) == watcher.ports() else {}

    ports = wait_until(known, "what the system shows is what the server lists")
    assert shared(ports) == set()


def test_after_an_outage_there_are_no_more_connections_than_before(works: Works) -> None:
    """Those who could not be served come again, and all at once: for them as for others there are only so many."""
    works.store.kill()
    runs = {pool: works.send(pool, "visit", number) for pool, number in POOLS.items()}
    time.sleep(0.5)  # most of them ask in vain; what comes later is served at once
    works.store.start()
    with redis.Redis.from_url(works.store.url) as client:
        client.execute_command("CLIENT", "PAUSE", CROWDED, "WRITE")

    for pool in POOLS:
        most = most_connections(works, pool, runs[pool])
        assert {pid: number for pid, number in most.items() if number > AT_ONCE[pool]} == {}
        assert all(came["token"] for came in results_of(runs[pool]))


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_leases_that_are_held_cost_no_connection_each(pool: str, works: Works) -> None:
    """One keeper renews all leases of a process."""
    runs = hold(works, pool)

    [held] = works.connections(pool).values()
    ended = let_go(works, runs)

    assert len(held) <= AT_ONCE[pool]
    assert ended == {works.workers[pool].pid}


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_what_is_done_after_an_outage_costs_a_process_one_connection_more(pool: str, works: Works) -> None:
    """The keeper settles what the store did not hear, while the next run asks; and it renews the lease of that one."""
    runs = hold(works, pool)
    works.store.kill()
    let_go(works, runs)
    works.store.start()
    watcher = Watcher(works.store)
    watcher.client.execute_command("CLIENT", "PAUSE", UNTIL_LATER, "WRITE")
    works.run(pool, "visit", POOLS[pool])

    runs = hold(works, pool)
    before = watcher.prolonged()
    wait_until(lambda: watcher.prolonged() >= before + 2 * POOLS[pool], "leases are renewed")
    connections = works.connections(pool)

    pids = let_go(works, runs)
    watcher.close()
    assert pids <= set(connections)
    assert {pid: len(ports) for pid, ports in connections.items() if len(ports) > AFTER_AN_OUTAGE} == {}
