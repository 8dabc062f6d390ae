"""Both stores, with a way to end a lease early: no test waits for an expiry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from celery_coord.stores import Store
from celery_coord.stores.memory import MemoryStore
from celery_coord.stores.opening import open_store
from celery_coord.stores.redis import RedisStore
from celery_coord.testing import FakeClock


@dataclass
class UnderTest:
    store: Store
    expire_lease: Callable[[str], None]
    expire_cooldown: Callable[[str], None]
    age_lease: Callable[[str, float], None]


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

    return UnderTest(store, expire_lease, expire_cooldown, age_lease)


def in_redis(url: str, namespace: str = "coord") -> UnderTest:
    store = open_store(url, namespace=namespace, timeout=5, clock=FakeClock())
    assert isinstance(store, RedisStore)

    def expire_lease(key: str) -> None:
        store._client.delete(f"lock:{store._name(key)}")

    def expire_cooldown(key: str) -> None:
        store._client.delete(f"coord-cooldown:{store._name(key)}")

    def age_lease(key: str, seconds: float) -> None:
        name = f"lock:{store._name(key)}"
        store._client.pexpire(name, store._client.pttl(name) - int(seconds * 1000))  # type: ignore[operator]

    return UnderTest(store, expire_lease, expire_cooldown, age_lease)
