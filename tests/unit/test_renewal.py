"""The keeper, round by round, on a clock that is moved by hand."""

from __future__ import annotations

import threading
import time

import pytest
from doubles import FlakyStore, Seen, StillKeeper

from celery_coord import LeaseLost, renewal
from celery_coord.clock import SystemClock
from celery_coord.errors import StoreError
from celery_coord.events import LeaseLost as Lost, StoreFailed
from celery_coord.lease import Lease, Owner
from celery_coord.renewal import Holding, Keeper, finish
from celery_coord.testing import FakeClock

TTL = 30.0


@pytest.fixture
def keeper(store: FlakyStore, clock: FakeClock, seen: Seen) -> Keeper:
    return StillKeeper(store, clock, seen)


def hold(store: FlakyStore, keeper: Keeper, key: str = "k", *, max_hold: float = 3600.0) -> Holding:
    asked_at = store.clock.monotonic()
    lease = store.acquire(key, Owner.new("run"), TTL, heed_cooldown=True)
    assert isinstance(lease, Lease)
    holding = Holding(lease, store.clock, asked_at=asked_at, max_hold=max_hold)
    keeper.watch(holding)
    return holding


def test_a_lease_is_renewed_every_third_of_its_ttl(store: FlakyStore, keeper: Keeper, clock: FakeClock) -> None:
    holding = hold(store, keeper)

    for _ in range(30):
        clock.advance(TTL / 3)
        keeper.round()

    assert not holding.lost
    assert store.asked.count("renew") == 30


def test_nothing_is_asked_before_it_is_due(store: FlakyStore, keeper: Keeper, clock: FakeClock) -> None:
    hold(store, keeper)

    clock.advance(TTL / 3 - 0.1)
    keeper.round()

    assert "renew" not in store.asked


def test_all_leases_that_come_due_together_are_renewed_in_one_batch(
    store: FlakyStore, keeper: Keeper, clock: FakeClock
) -> None:
    holdings = [hold(store, keeper, f"k{n}") for n in range(50)]

    clock.advance(TTL / 3)
    keeper.round()

    assert store.asked.count("renew") == 1
    clock.advance(TTL * 0.7)
    assert not any(holding.lost for holding in holdings)


def test_a_holder_that_cannot_renew_knows_it_in_time_without_asking_the_store(
    store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen
) -> None:
    holding = hold(store, keeper)
    store.away = True

    clock.advance(TTL * 0.94)
    keeper.round()
    assert not holding.lost
    clock.advance(TTL * 0.02)
    asked = len(store.asked)

    assert holding.lost
    with pytest.raises(LeaseLost):
        holding.ensure()
    assert len(store.asked) == asked
    assert store._guards["k"].held_until > clock.monotonic()
    keeper.round()
    assert seen.of(Lost) == [Lost("k", holding.lease.owner, "unrenewed")]


def test_a_renewal_that_failed_is_tried_again_soon_and_may_still_go_well(
    store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen
) -> None:
    holding = hold(store, keeper)
    store.away = True
    clock.advance(TTL / 3)
    keeper.round()
    store.away = False

    clock.advance(TTL / 12)
    keeper.round()
    clock.advance(TTL * 0.9)

    assert len(seen.of(StoreFailed)) == 1
    assert not holding.lost


def test_the_trust_in_a_slow_renewal_counts_from_before_it_was_asked(
    store: FlakyStore, keeper: Keeper, clock: FakeClock
) -> None:
    holding = hold(store, keeper)
    clock.advance(TTL / 3)
    store.slow = 10.0

    keeper.round()
    clock.advance(TTL * 0.94 - 10.0)
    assert not holding.lost
    clock.advance(TTL * 0.02)

    assert holding.lost


def test_a_lease_that_the_store_gave_away_is_lost_at_the_next_renewal(
    store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen
) -> None:
    holding = hold(store, keeper)
    store.expire("k")

    clock.advance(TTL / 3)
    keeper.round()

    assert holding.lost
    assert seen.of(Lost) == [Lost("k", holding.lease.owner, "gone")]


def test_a_hung_body_does_not_keep_its_key_for_ever(
    store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen
) -> None:
    holding = hold(store, keeper, max_hold=100.0)

    for _ in range(60):
        clock.advance(TTL / 12)
        keeper.round()

    assert holding.lost
    assert seen.of(Lost) == [Lost("k", holding.lease.owner, "max_hold")]
    assert not store.look("k")


def test_a_lease_that_was_forgotten_is_never_renewed(store: FlakyStore, keeper: Keeper, clock: FakeClock) -> None:
    holding = hold(store, keeper)

    keeper.forget(holding.lease.owner)
    clock.advance(TTL / 3)
    keeper.round()

    assert "renew" not in store.asked


def test_a_lease_that_was_settled_while_it_was_renewed_is_not_called_lost(
    store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen
) -> None:
    holding = hold(store, keeper)
    renew = store.renew

    def settled_meanwhile(leases: list[Lease]) -> list[bool]:
        keeper.forget(holding.lease.owner)
        store.settle(holding.lease)
        return renew(leases)

    store.renew = settled_meanwhile  # type: ignore[method-assign]
    clock.advance(TTL / 3)
    keeper.round()

    assert seen.of(Lost) == []
    assert not holding.known_lost


def test_the_keepers_thread_outlives_a_surprise_and_wakes_for_a_shorter_lease(seen: Seen) -> None:
    """Real time: one long lease first, so that the thread sleeps, then one that is due at once."""
    from celery_coord.clock import SystemClock

    surprises = [RuntimeError("surprise")]
    renewed = threading.Event()

    class Store(FlakyStore):
        def renew(self, leases: list[Lease]) -> list[bool]:  # type: ignore[override]
            if surprises:
                raise surprises.pop()
            renewed.set()
            return [True] * len(leases)

    clock = SystemClock()
    keeper = Keeper(Store(FakeClock()), clock, seen)
    now = clock.monotonic()
    keeper.watch(Holding(Lease("long", "a/0/x", 1, 600.0), clock, asked_at=now, max_hold=3600))
    time.sleep(0.05)
    keeper.watch(Holding(Lease("short", "b/0/x", 2, 0.15), clock, asked_at=now, max_hold=3600))
    # Renewed a second from now, and trusted for long after that: the short one may be lost before it is renewed.
    keeper.watch(Holding(Lease("middle", "c/0/x", 3, 60.0), clock, asked_at=now - 19, max_hold=3600))

    assert renewed.wait(30)
    assert "RuntimeError: surprise" in str(seen.of(StoreFailed)[0])


def test_short_bodies_do_not_wake_the_keeper_one_by_one(store: FlakyStore, seen: Seen) -> None:
    rounds: list[None] = []

    class CountingKeeper(Keeper):
        def round(self) -> None:
            rounds.append(None)
            super().round()

    keeper = CountingKeeper(store, SystemClock(), seen)
    for number in range(20):
        holding = Holding(Lease("k", str(number), 1, TTL), SystemClock(), asked_at=time.monotonic(), max_hold=3600.0)
        keeper.watch(holding)
        keeper.forget(holding.lease.owner)
        time.sleep(0.005)  # the keeper's turn, if it was woken

    assert len(rounds) < 10


def test_what_is_left_for_later_waits_when_a_renewal_is_due(clock: FakeClock, store: FlakyStore, seen: Seen) -> None:
    """5. The lease is renewed while the body runs, however much was left for a store that was away."""
    keeper, done = StillKeeper(store, clock, seen), []

    def slow() -> bool:
        clock.advance(1)
        done.append(keeper._holdings["run/0/x"].trusted_for)
        return True

    lease = store.acquire("k", Owner("run", 0, "x"), 3, heed_cooldown=False)
    assert isinstance(lease, Lease)
    keeper.watch(Holding(lease, clock, asked_at=clock.monotonic(), max_hold=3600))
    for _ in range(20):
        keeper.do_later(slow, until=clock.monotonic() + 3600)
    for _ in range(60):
        keeper.round()
        clock.advance(0.5)

    assert len(done) == 20
    assert min(done) > 0
    assert "LeaseLost" not in seen.kinds


@pytest.mark.parametrize("error", [StoreError("this one alone"), RuntimeError("a surprise")])
def test_what_cannot_be_done_later_keeps_nothing_else_waiting_and_has_an_end(
    clock: FakeClock, store: FlakyStore, seen: Seen, error: Exception
) -> None:
    keeper, asked, done = StillKeeper(store, clock, seen), [], []

    def never() -> bool:
        asked.append(clock.monotonic())
        raise error

    def well() -> bool:
        done.append(1)
        return True

    keeper.do_later(never, until=clock.monotonic() + 10)
    keeper.do_later(well, until=clock.monotonic() + 10)
    for _ in range(20):
        clock.advance(1)
        keeper.round()

    assert done == [1]
    assert 5 <= len(asked) <= 10
    assert not keeper._later


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keepers of other tests are none of this process's."""
    monkeypatch.setattr(renewal, "_awaited", set())


@pytest.mark.usefixtures("alone")
def test_a_process_that_ends_waits_until_the_store_has_heard(store: FlakyStore, seen: Seen) -> None:
    """12. What it had left for later, and what the keeper is about to do, is done when `finish` returns."""
    keeper, is_back = Keeper(store, SystemClock(), seen), threading.Event()
    tries: list[bool] = []

    def act() -> bool:
        tries.append(is_back.is_set())
        if not is_back.is_set():
            is_back.set()
            raise StoreError("away")
        return True

    keeper.do_later(act, until=time.monotonic() + 60)
    finish(30)

    assert tries == [False, True]


@pytest.mark.usefixtures("alone")
def test_a_process_that_ends_does_not_wait_for_long(store: FlakyStore, seen: Seen) -> None:
    """4. A store that stays away keeps nobody from ending."""
    keeper = Keeper(store, SystemClock(), seen)

    def never() -> bool:
        raise StoreError("away")

    keeper.do_later(never, until=time.monotonic() + 60)
    begun = time.monotonic()
    finish(0.1)

    assert time.monotonic() - begun < 30


@pytest.mark.usefixtures("alone")
def test_a_process_that_ends_waits_for_nothing_that_others_can_do(store: FlakyStore, seen: Seen) -> None:
    keeper = Keeper(store, SystemClock(), seen)

    def never() -> bool:
        raise StoreError("away")

    keeper.do_later(never, until=time.monotonic() + 60, awaited=False)
    begun = time.monotonic()
    finish(60)

    assert time.monotonic() - begun < 30
