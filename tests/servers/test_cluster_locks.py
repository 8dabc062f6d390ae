"""`task.lock()` in a cluster: it goes where its slot is, and waits for no node that says nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis_lock
from local_processes import wait_until
from redis.crc import key_slot

from celery_coord.lease import Owner
from celery_coord.stores.redis import RedisStore
from celery_coord.testing import LocalServer
from tests.servers.keeping import Kept
from tests.servers.load_members import store_at
from tests.servers.local_cluster import LocalCluster
from tests.servers.local_nodes import Node

KEY = "report:7"
SLOT = key_slot(f"lock:{{coord:{KEY}}}".encode())
TTL = 60.0
#: Far more than any act may take, and far less than without a bound.
PATIENCE = 20.0
Open = Callable[..., RedisStore]


@pytest.fixture(scope="module")
def set_up(server: LocalServer) -> Iterator[LocalCluster]:
    with LocalCluster() as started:
        yield started


@pytest.fixture
def opened(cluster: LocalCluster, kept: Kept) -> Open:
    def open_one(seeds: list[Node], timeout: float = 5.0) -> RedisStore:
        return kept(store_at(cluster.url_of(seeds), timeout=timeout))

    return open_one


def locked(store: RedisStore) -> redis_lock.Lock:
    return store.lock(KEY, TTL, "a shell")


def in_time(act: Callable[[], Any]) -> Any:
    """What an act returns or raises; nobody knows when one without a bound would."""
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(act())
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert ended, "it still waits"
    return ended[0]


def is_had(lock: redis_lock.Lock) -> bool:
    """Whether it can be taken and released; what was taken though the answer came too late is taken, too."""
    taken = in_time(lambda: lock.acquire(blocking=False))
    if taken is not True and not isinstance(taken, redis_lock.AlreadyAcquired):
        return False
    ended = in_time(lock.release)
    return ended is None or isinstance(ended, redis_lock.NotAcquired)


def other_than(cluster: LocalCluster, *nodes: Node) -> Node:
    return next(node for node in cluster.primaries if node not in nodes)


def test_a_lock_is_made_and_fails_in_time_where_the_only_node_that_is_named_says_nothing(
    cluster: LocalCluster, opened: Open
) -> None:
    """9. Bounded in time, with the errors that who uses python-redis-lock knows."""
    silent = cluster.primary_of(SLOT)
    store = opened([silent], timeout=1.0)
    silent.pause()

    lock = in_time(lambda: locked(store))

    assert isinstance(lock, redis_lock.Lock)
    for act in (lambda: lock.acquire(blocking=False), lambda: lock.acquire(timeout=600), lock.release):
        ended = in_time(act)
        assert isinstance(ended, redis.TimeoutError | redis.ConnectionError), ended


def test_a_lock_is_to_be_had_though_one_of_the_nodes_that_are_named_says_nothing(
    cluster: LocalCluster, opened: Open
) -> None:
    home = cluster.primary_of(SLOT)
    silent = other_than(cluster, home)
    store = opened([silent, home], timeout=1.0)
    silent.pause()
    cluster.wait_for_heir(silent, next(slot for slot, node in cluster._owners().items() if node is silent))

    lock = in_time(lambda: locked(store))

    wait_until(lambda: is_had(lock), "the lock")


def test_a_lock_whose_node_stands_still_fails_in_time_and_is_to_be_had_of_its_heir(
    cluster: LocalCluster, opened: Open
) -> None:
    """9. Bounded in time; and what its node did not answer is not asked for twice."""
    store = opened(cluster.nodes, timeout=1.0)
    wait_until(lambda: in_time(locked(store).locked) is False, "the map is known, and a connection is open")
    silent = cluster.primary_of(SLOT)
    silent.pause()

    first = in_time(lambda: locked(store).acquire(blocking=False))
    cluster.wait_for_heir(silent, SLOT)
    lock = locked(store)

    assert isinstance(first, redis.TimeoutError | redis.ConnectionError), first
    wait_until(lambda: is_had(lock), "the lock, of the heir")


def test_a_lock_goes_with_its_slot(cluster: LocalCluster, opened: Open) -> None:
    store, home = opened(cluster.nodes), cluster.primary_of(SLOT)
    first, second = other_than(cluster, home), other_than(cluster, home, other_than(cluster, home))
    lock = locked(store)
    assert lock.acquire(blocking=False)

    cluster.migrate(SLOT, first)
    lock.extend()
    assert locked(store).acquire(blocking=False) is False
    cluster.migrate(SLOT, second)
    lock.release()

    assert not lock.locked()
    assert store.look(KEY).held is None


def test_a_lock_is_taken_and_looked_at_while_its_slot_is_on_its_way(cluster: LocalCluster, opened: Open) -> None:
    """What does not exist yet is made at its new place, which does not have the slot yet."""
    store, home = opened(cluster.nodes), cluster.primary_of(SLOT)
    target, lock = other_than(cluster, home), locked(store)

    cluster.begin_migration(SLOT, target)
    assert lock.acquire(blocking=False)
    assert lock.locked()
    assert locked(store).acquire(timeout=1) is False
    cluster.finish_migration(SLOT, target)

    held = store.look(KEY).held
    assert held is not None
    assert held.holder == lock.id
    lock.release()


def test_who_waits_for_a_lock_is_woken_at_the_new_place_of_its_slot(cluster: LocalCluster, opened: Open) -> None:
    store, home = opened(cluster.nodes), cluster.primary_of(SLOT)
    lease = store.acquire(KEY, Owner.new("run"), TTL, heed_cooldown=True)
    lock, waiting = locked(store), list[Any]()
    waiter = threading.Thread(target=lambda: waiting.append(in_time(lambda: lock.acquire(timeout=600))))
    waiter.start()
    wait_until(lambda: home.client.info("clients")["blocked_clients"], "one who waits")

    cluster.migrate(SLOT, other_than(cluster, home))
    store.settle(lease)  # type: ignore[arg-type]
    waiter.join(PATIENCE)

    lock.release()  # else it may still be renewed when there is no cluster any more
    assert waiting == [True]
