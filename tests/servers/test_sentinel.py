"""What Sentinel's promotions do to a lease, step by step; under load they are in ``test_sentinel_load.py``."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from local_processes import wait_until
from redis.sentinel import SentinelManagedConnection

from celery_coord.clock import SystemClock
from celery_coord.errors import StoreError
from celery_coord.lease import Held, Lease, Owner
from celery_coord.renewal import Holding
from celery_coord.stores.redis import RedisStore
from celery_coord.testing import LocalServer, free_port
from tests.servers.load_members import store_at
from tests.servers.local_sentinel import MASTER, QUICK, SLOW, LocalSentinel

KEY, ENDED = "report:7", "report:8"
TTL = 300.0
#: Longer than any pause.
TIMEOUT = 10.0


@pytest.fixture(scope="module")
def set_up(server: LocalServer) -> Iterator[LocalSentinel]:
    with LocalSentinel() as started:
        yield started


@pytest.fixture
def whole(set_up: LocalSentinel) -> LocalSentinel:
    """All of them up again, with nothing written, and sentinels that look around often."""
    set_up.hurry(**QUICK)
    set_up.mend()
    set_up.flush()
    return set_up


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
    whole: LocalSentinel, pair: tuple[RedisStore, RedisStore]
) -> None:
    """Sentinel tells it after eight seconds. Until then it takes writes of all who are connected, and loses them."""
    set_up = whole
    one, other = pair[0], store_at(set_up.url, timeout=TIMEOUT)
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


def test_a_lock_outside_celery_follows_a_promotion_as_runs_do(whole: LocalSentinel) -> None:
    """1. A process that does nothing but lock is not to lock where nobody else looks any more."""
    set_up = whole
    one, other = (store_at(set_up.url, timeout=TIMEOUT) for _ in range(2))
    set_up.hurry(**SLOW)
    with one.lock(KEY, TTL, "a shell"):  # its connection stays open
        pass
    old = set_up.primary
    set_up.promote()
    set_up.hurry(publish_period=600_000)
    second = granted(other)

    def is_refused() -> bool:
        lock = one.lock(KEY, TTL, "a shell")
        is_ours = lock.acquire(blocking=False)
        if is_ours:
            lock.release()
        return not is_ours

    assert wait_until(is_refused, "the answer of the new primary")

    assert other.renew([second]) == [True]
    assert old.info()["role"] == "master"
    one.close()
    other.close()


class Struck(Exception):
    """What a soft time limit raises."""


@pytest.fixture
def main_thread() -> Iterator[int]:
    """The main thread, which a signal strikes as a time limit does."""

    def strike(*_: object) -> None:
        raise Struck

    before = signal.signal(signal.SIGALRM, strike)
    yield threading.main_thread().ident or 0
    signal.signal(signal.SIGALRM, before)


def when_waiting(thread: int, act: Callable[[], None]) -> threading.Thread:
    """Do something as soon as a thread waits for an answer of the server that Sentinel names."""

    def waits() -> bool:
        frame = sys._current_frames().get(thread)
        while frame is not None:
            reads = frame.f_code.co_name == "read_response"
            if reads and isinstance(frame.f_locals.get("self"), SentinelManagedConnection):
                return True
            frame = frame.f_back
        return False

    def wait_and_act() -> None:
        wait_until(waits, "one who waits for an answer")
        act()

    waiting = threading.Thread(target=wait_and_act, daemon=True)
    waiting.start()
    return waiting


ACTS: dict[str, Callable[[RedisStore], object]] = {
    "as it connects": lambda store: acquire(store, "k1"),
    "in a lock": lambda store: store.lock("k1", TTL, "a shell").acquire(blocking=False),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_answer_that_nobody_waits_for_any_more_is_not_taken_for_that_to_another_question(
    whole: LocalSentinel, main_thread: int, act: Callable[[RedisStore], object]
) -> None:
    """1, 2. Else a run that is refused would be let through, by the answer that another one was given."""
    # The name is told, and answered, each time that a connection is made.
    one, other = (store_at(f"{whole.url}&client_name=us", timeout=TIMEOUT) for _ in range(2))
    holder = granted(other, "k3")
    if act is ACTS["in a lock"]:
        assert one.lock("k0", TTL, "a shell").acquire(blocking=False)  # it is connected
    primary = whole.pause()
    striking = when_waiting(main_thread, lambda: signal.pthread_kill(main_thread, signal.SIGALRM))
    with pytest.raises(Struck):
        act(one)
    striking.join()

    waking = when_waiting(main_thread, primary.wake)
    leases = {key: acquire(one, key) for key in ("k2", "k3", "k4")}
    waking.join()

    refused = leases.pop("k3")
    assert isinstance(refused, Held)
    assert refused.holder == holder.owner
    for key, lease in leases.items():
        assert isinstance(lease, Lease)
        found = other.look(key).held
        assert found is not None
        assert (found.holder, found.token) == (lease.owner, lease.token)
    one.close()
    other.close()


def test_no_sentinel_is_forgotten_when_several_threads_ask_at_the_same_time(
    whole: LocalSentinel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9. The store is away where no sentinel answers, not where the one that answered last does not."""
    silent = free_port()
    hosts = ",".join(f"127.0.0.1:{port}" for port in (silent, *(each.port for each in whole.sentinels)))
    watchers = store_at(f"sentinel://{hosts}/0?master_name={MASTER}").primaries()[0].connection_pool.sentinel_manager
    all_of_them = list(watchers.sentinels)
    second = watchers.sentinels[1]
    ask, asked = second.sentinel_get_master_addr_by_name, []

    def ask_while_another_does(name: str) -> object:
        asked.append(name)
        if len(asked) == 1:  # as another thread would, between the question and the answer
            watchers.discover_master(name)
        return ask(name)

    monkeypatch.setattr(second, "sentinel_get_master_addr_by_name", ask_while_another_does)

    assert watchers.discover_master(MASTER) == ("127.0.0.1", whole.primary.port)

    assert watchers.sentinels[0] is second
    assert set(map(id, watchers.sentinels)) == set(map(id, all_of_them))
