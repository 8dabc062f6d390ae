"""What Sentinel's promotions do to a lease, step by step; under load they are in ``test_sentinel_load.py``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from local_processes import wait_until

from celery_coord.clock import SystemClock
from celery_coord.errors import StoreError
from celery_coord.lease import Held, Lease, Owner
from celery_coord.renewal import Holding
from celery_coord.stores.redis import RedisStore
from celery_coord.testing import LocalServer
from tests.servers.load_members import store_at
from tests.servers.local_sentinel import SLOW, LocalSentinel

KEY, ENDED = "report:7", "report:8"
TTL = 300.0
#: Longer than any pause.
TIMEOUT = 10.0


@pytest.fixture(scope="module")
def set_up(server: LocalServer) -> Iterator[LocalSentinel]:
    with LocalSentinel() as started:
        yield started


@pytest.fixture(scope="module")
def pair(set_up: LocalSentinel) -> Iterator[tuple[RedisStore, RedisStore]]:
    """The stores of two processes."""
    one, other = (store_at(set_up.url, timeout=TIMEOUT) for _ in range(2))
    yield one, other
    one.close()
    other.close()


def acquire(store: RedisStore, key: str = KEY, owner: Owner | None = None) -> Lease | object:
    return store.acquire(key, owner or Owner.new("run"), TTL, heed_cooldown=True)


def granted(store: RedisStore, key: str = KEY) -> Lease:
    """A lease, as soon as the store answers; what it answers first must be that."""
    owner = Owner.new("run")  # what it was not told that it has is granted it again

    def answer() -> object:
        try:
            return acquire(store, key, owner)
        except StoreError:
            return None

    lease = wait_until(answer, "a store that answers")
    assert isinstance(lease, Lease)
    return lease


@dataclass(frozen=True)
class Loss:
    """What the new primary does not know of.

    Attributes:
        first: a lease that was granted, and is believed in.
        ended: a lease that was settled, with a quiet period, and whose run was remembered.
    """

    first: Holding
    ended: Lease


@pytest.fixture(scope="module")
def lost(set_up: LocalSentinel, pair: tuple[RedisStore, RedisStore]) -> Loss:
    """A promotion that lost what happened just before."""
    store, clock = pair[0], SystemClock()
    ended = granted(store, ENDED)
    wait_until(lambda: all(replica.client.exists(f"lock:{{coord:{ENDED}}}") for replica in set_up.replicas), "copies")
    old = set_up.cut_replication()
    assert store.settle(ended, cooldown=TTL, remember=TTL)
    first = Holding(granted(store), clock, asked_at=clock.monotonic(), max_hold=TTL)
    old.kill()
    set_up.wait_for_new_primary(old)
    return Loss(first, ended)


def test_a_promoted_replica_that_has_lost_a_lease_admits_a_second_holder_while_the_first_still_trusts(
    lost: Loss, pair: tuple[RedisStore, RedisStore]
) -> None:
    one, other = pair

    second = granted(other)

    assert not lost.first.lost  # the hole that `coord_min_replicas` narrows
    assert second.token > lost.first.token
    # The first learns it at its next renewal, and touches nothing of the second's.
    assert wait_until(lambda: not isinstance(one.renew([lost.first.lease])[0], StoreError), "an answer")
    assert one.renew([lost.first.lease]) == [False]
    assert not one.settle(lost.first.lease, cooldown=TTL)
    found = other.look(KEY)
    assert found.held is not None
    assert found.held.holder == second.owner
    assert found.cooling is None
    assert other.renew([second]) == [True]
    assert other.settle(second)


def test_what_had_ended_when_writes_were_lost_has_not_ended_after_the_promotion(
    lost: Loss, pair: tuple[RedisStore, RedisStore]
) -> None:
    _, other = pair

    found = wait_until(lambda: other.look(ENDED), "what is left of it")

    assert found.held is not None
    assert found.held.holder == lost.ended.owner
    assert found.cooling is None
    owner = Owner.parse(lost.ended.owner)
    assert owner is not None
    assert isinstance(other.acquire(ENDED, owner, TTL, heed_cooldown=True), Lease)  # its own message, once more


def test_a_primary_that_was_replaced_is_not_believed_for_as_long_as_it_believes_in_itself(
    set_up: LocalSentinel, pair: tuple[RedisStore, RedisStore]
) -> None:
    """Sentinel tells it after eight seconds. Until then it takes writes of all who are connected, and loses them."""
    one, other = pair[0], store_at(set_up.url, timeout=TIMEOUT)
    set_up.mend()
    set_up.flush()
    set_up.hurry(**SLOW)
    assert one.settle(granted(one))  # its connection stays open
    old = set_up.primary
    set_up.promote()
    set_up.hurry(publish_period=600_000)  # here nobody tells it, however long what follows may take
    second = granted(other)

    def refused() -> Held | None:
        match acquire(one):
            case Held() as held:
                return held
            case Lease() as lease:
                one.settle(lease)
        return None

    answer = wait_until(refused, "the answer of the new primary")

    assert answer.holder == second.owner
    assert old.info()["role"] == "master"
    other.close()
