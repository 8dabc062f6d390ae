"""Everything that the library asks of a server, once: for those who want to know what they may do there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import redis
import redis_lock

from celery_coord.errors import NewerLayout
from celery_coord.lease import Cooling, Held, Lease, Owner
from celery_coord.stores.redis import RedisStore
from celery_coord.stores.redis.names import Names

#: Of leases that do not end while a test runs.
TTL = 60.0

Act = Callable[[RedisStore, Any], None]


def failing(store: RedisStore, admin: Any) -> Iterator[str]:
    """The acts that do not do what they are for, and why; the admin begins each in an empty store."""
    for act in ACTS:
        for name in list(admin.scan_iter()):
            admin.delete(name)
        try:
            act(store, admin)
        except Exception as error:
            yield f"{act.__name__}: {error}"


def is_admitted_and_settles(store: RedisStore, admin: Any) -> None:
    lease = leased(store)
    assert store.look("k").held
    assert store.renew([lease]) == [True]
    assert store.settle(lease, cooldown=60, remember=60)
    assert isinstance(store.acquire("k", Owner.new("other"), TTL, heed_cooldown=True), Cooling)
    assert store.clear("k")


def takes_over_from_a_generation_that_ended(store: RedisStore, admin: Any) -> None:
    lease = leased(store, remember=60)
    assert isinstance(store.acquire("k", Owner.new("other"), TTL, heed_cooldown=True, remember=60), Held)
    assert store.hold(lease, 60, remember=60)
    assert leased(store, Owner.new("run", 1), remember=60).token > lease.token


def settles_twice(store: RedisStore, admin: Any) -> None:
    lease = leased(store)
    assert store.settle(lease, cooldown=60, remember=60, told=False)
    assert store.settle(lease, cooldown=60, remember=60)
    another = store.acquire("k2", Owner.new("run"), TTL, heed_cooldown=True)
    assert isinstance(another, Lease)
    assert store.settle(another)
    assert store.settle(another)


def cools_without_a_lease(store: RedisStore, admin: Any) -> None:
    owner = Owner.new("run")
    store.cool("k", owner, 60, remember=60, told=False)
    store.cool("k", owner, 90, remember=60)
    assert store.refuses("k", owner, heed_cooldown=True)
    store.forget("k", owner)
    assert isinstance(store.refuses("k", Owner.new("other"), heed_cooldown=True), Cooling)


def writes_down_what_it_led(store: RedisStore, admin: Any) -> None:
    lease = leased(store)
    assert store.record(lease, "fact", "1", within=60).by_us
    assert store.record(lease, "fact", "2", was="1", within=60).by_us
    assert store.records("k") == {"fact": "2"}
    assert store.record(lease, "fact", "", was="2").by_us
    store.record(lease, "fact", "3")
    assert store.erase(lease, ["fact"])


def hears_what_is_asked_of_it(store: RedisStore, admin: Any) -> None:
    store.ask("k", "step down", 60)
    assert store.request("k") == "step down"


def lists_what_is_held(store: RedisStore, admin: Any) -> None:
    leased(store)
    assert store.keys("") == ["k"]


def waits(store: RedisStore, admin: Any) -> None:
    store.settle(leased(store))
    store.wait("k", 0.1)


@contextmanager
def two_locks(store: RedisStore) -> Iterator[tuple[redis_lock.Lock, redis_lock.Lock]]:
    """They are not renewed when this is over, however it ends and whatever releasing them is answered."""
    locks = store.lock("k", 5, "a shell"), store.lock("k", 5, "a shell")
    try:
        yield locks
    finally:
        for lock in locks:
            with suppress(redis.RedisError, redis_lock.NotAcquired):
                lock.release()


def locks_for_code_outside(store: RedisStore, admin: Any) -> None:
    with two_locks(store) as (lock, other):
        assert lock.acquire()
        lock.extend()
        assert lock.locked()
        assert lock.get_owner_id() == lock.id
        assert other.acquire(blocking=False) is False
        soon = threading.Timer(0.05, lock.release)
        soon.start()
        try:
            assert other.acquire(blocking=True, timeout=5)
        finally:
            soon.join()
        other.release()


def gives_way_to_a_later_layout(store: RedisStore, admin: Any) -> None:
    admin.set(Names("coord", "k").layout, 99)
    with suppress(NewerLayout):
        leased(store)
        raise AssertionError("granted under a later layout")


def finds_out_that_a_server_evicts(store: RedisStore, admin: Any) -> None:
    with evicting(admin):
        assert any("maxmemory-policy" in doubt for doubt in store.check())


ACTS: tuple[Act, ...] = (
    is_admitted_and_settles,
    takes_over_from_a_generation_that_ended,
    settles_twice,
    cools_without_a_lease,
    writes_down_what_it_led,
    hears_what_is_asked_of_it,
    lists_what_is_held,
    waits,
    locks_for_code_outside,
    gives_way_to_a_later_layout,
    finds_out_that_a_server_evicts,
)


def leased(store: RedisStore, owner: Owner | None = None, *, remember: float = 0.0) -> Lease:
    answer = store.acquire("k", owner or Owner.new("run"), TTL, heed_cooldown=True, label="here", remember=remember)
    assert isinstance(answer, Lease)
    return answer


@contextmanager
def evicting(admin: Any) -> Iterator[None]:
    """A server that forgets what it was told when its memory is full."""
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.config_set("maxmemory", "1gb")
    try:
        yield
    finally:
        admin.config_set("maxmemory", "0")
        admin.config_set("maxmemory-policy", "noeviction")
