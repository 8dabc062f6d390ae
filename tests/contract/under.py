"""Both stores, with a way to end a lease early, and to see who waits: no test waits for an expiry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from redis.cluster import RedisCluster

from celery_coord.stores import Store
from celery_coord.stores.memory import MemoryStore
from celery_coord.stores.opening import open_store
from celery_coord.stores.redis.names import Names
from celery_coord.testing import FakeClock
from tests.servers.kinds import SetUp


@dataclass
class UnderTest:
    store: Store
    expire_lease: Callable[[str], None]
    expire_cooldown: Callable[[str], None]
    age_lease: Callable[[str, float], None]
    age_run: Callable[[str, str, float], None]
    waiting: Callable[[], int]


def in_memory() -> UnderTest:
    store = MemoryStore(FakeClock())

    def expire_lease(key: str) -> None:
        if key in store._guards:
            store._guards[key].held_until = 0.0

    def expire_cooldown(key: str) -> None:
        if key in store._guards:
            store._guards[key].cool_until = 0.0

    def age_lease(key: str, seconds: float) -> None:
        store._guards[key].held_until -= seconds

    def age_run(key: str, run: str, seconds: float) -> None:
        known = store._ended[key, run]
        store._ended[key, run] = replace(known, until=known.until - seconds)

    def waiting() -> int:
        return len(store._changed._waiters)  # type: ignore[attr-defined]

    return UnderTest(store, expire_lease, expire_cooldown, age_lease, age_run, waiting)


def in_redis(set_up: SetUp, namespace: str = "coord") -> UnderTest:
    """The store that the URL of a set-up names; what the store itself may not do is its administrator's."""
    store = open_store(set_up.url, namespace=namespace, timeout=5, clock=FakeClock())

    def expire_lease(key: str) -> None:
        set_up.admin.delete(Names(namespace, key).lock)

    def expire_cooldown(key: str) -> None:
        set_up.admin.delete(Names(namespace, key).cooldown)

    def age_lease(key: str, seconds: float) -> None:
        age(Names(namespace, key).lock, seconds)

    def age_run(key: str, run: str, seconds: float) -> None:
        age(Names(namespace, key).done(run), seconds)

    def age(name: str, seconds: float) -> None:
        set_up.admin.pexpire(name, set_up.admin.pttl(name) - int(seconds * 1000))

    def waiting() -> int:
        if isinstance(set_up.admin, RedisCluster):
            told = set_up.admin.info("clients", target_nodes=RedisCluster.PRIMARIES).values()
        else:
            told = [set_up.admin.info("clients")]
        return sum(each["blocked_clients"] for each in told)

    return UnderTest(store, expire_lease, expire_cooldown, age_lease, age_run, waiting)
