from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from doubles import FlakyStore, Seen, StillKeeper

from celery_coord import Cooldown, LeaseLost, NoLease, current_lease
from celery_coord.errors import StoreError
from celery_coord.events import CooldownStarted, LeaseLost as LostEvent
from celery_coord.gate import Admitted, Claim, Ending, Gate, Kind, Unanswered
from celery_coord.lease import Cooling, Done, Held, Owner
from celery_coord.renewal import Holding, Keeper
from celery_coord.testing import FakeClock

Run = Callable[..., object]

_runs = itertools.count(1)


def claim(run: str = "", **changes: object) -> Claim:
    owner = Owner.new(run or f"run-{next(_runs)}")
    whole = Claim("k", owner, "here", ttl=30, max_hold=3600, cooldown=Cooldown(60, on_failure=10), heed_cooldown=True)
    return replace(whole, **changes)  # type: ignore[arg-type]


@pytest.fixture
def keeper(store: FlakyStore, clock: FakeClock, seen: Seen) -> Keeper:
    return StillKeeper(store, clock, seen)


@pytest.fixture
def gate(store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen) -> Gate:
    return Gate(store, keeper, clock, seen)


def failed(error: BaseException | None) -> Ending:
    if error is None:
        return Ending(Kind.WELL)
    return Ending(Kind.FAILED if isinstance(error, Exception) else Kind.NEITHER)


def never() -> None:
    pytest.fail("the body of a refused run started")


def test_a_run_is_admitted_with_one_round_trip_and_settles_with_one(gate: Gate, store: FlakyStore, seen: Seen) -> None:
    assert gate.admit(claim(), lambda: 42, failed) == Admitted(42)

    assert store.asked == ["acquire", "settle"]
    assert seen.kinds == ["LeaseAcquired", "LeaseReleased", "CooldownStarted"]


def test_the_body_of_a_refused_run_never_starts_and_touches_nothing_of_the_holders(
    gate: Gate, store: FlakyStore
) -> None:
    store.acquire("k", Owner.new("holder"), 30, heed_cooldown=True, label="elsewhere")
    before = store.look("k")

    refusal = gate.admit(claim(), never, failed)

    assert isinstance(refusal, Held)
    assert refusal.label == "elsewhere"
    assert store.look("k") == before


def test_a_cooling_key_refuses_and_one_call_can_pass_it_by(gate: Gate, store: FlakyStore) -> None:
    gate.admit(claim(), lambda: None, failed)

    assert isinstance(gate.admit(claim(), never, failed), Cooling)
    assert isinstance(gate.admit(claim(heed_cooldown=False), lambda: None, failed), Admitted)


def test_a_good_end_leaves_the_quiet_period_and_a_failure_its_own(
    gate: Gate, store: FlakyStore, clock: FakeClock
) -> None:
    gate.admit(claim(), lambda: None, failed)
    assert store.look("k").cooling.left == 60  # type: ignore[union-attr]
    store.clear("k")

    with pytest.raises(ZeroDivisionError):
        gate.admit(claim(), lambda: 1 / 0, failed)

    assert store.look("k").cooling.left == 10  # type: ignore[union-attr]
    assert store.look("k").held is None


@pytest.mark.parametrize("how", [SystemExit, KeyboardInterrupt])
def test_a_shutdown_frees_the_key_and_leaves_no_quiet_period(
    gate: Gate, store: FlakyStore, seen: Seen, how: type[BaseException]
) -> None:
    def body() -> None:
        raise how

    with pytest.raises(how):
        gate.admit(claim(), body, failed)

    assert not store.look("k")
    assert seen.kinds == ["LeaseAcquired", "LeaseAbandoned"]


def test_a_body_sees_its_lease_and_code_outside_has_none(gate: Gate, store: FlakyStore) -> None:
    def body() -> Holding:
        held = current_lease()
        held.ensure()
        assert not held.lost
        assert (held.key, held.token) == ("k", store.look("k").held.token)  # type: ignore[union-attr]
        return held

    assert isinstance(gate.admit(claim(), body, failed), Admitted)
    with pytest.raises(NoLease, match="exclusive=True"):
        current_lease()
    assert current_lease(None) is None


def test_a_good_result_under_a_lost_lease_stands_and_earns_no_quiet_period_and_is_told(
    gate: Gate, store: FlakyStore, seen: Seen
) -> None:
    def body() -> int:
        store.expire("k")
        store.acquire("k", Owner.new("usurper"), 30, heed_cooldown=True)
        return 42

    assert gate.admit(claim(), body, failed) == Admitted(42)

    look = store.look("k")
    assert look.cooling is None
    assert look.held is not None
    assert look.held.holder.startswith("usurper/")
    assert seen.kinds == ["LeaseAcquired", "LeaseLost", "LeaseOutlived"]


def test_a_lease_that_is_no_longer_trusted_earns_no_quiet_period_though_the_store_still_has_it(
    gate: Gate, store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    def body() -> None:
        clock.advance(29)  # the store keeps it for 30, its holder believes in it for 28.5
        assert current_lease().lost

    gate.admit(claim(), body, failed)

    assert not store.look("k")
    assert seen.kinds == ["LeaseAcquired", "LeaseReleased", "LeaseLost", "LeaseOutlived"]


@pytest.mark.parametrize(("max_hold", "why"), [(20.0, "max_hold"), (3600.0, "unrenewed")])
def test_a_body_that_ends_before_the_keeper_has_told_of_its_loss_says_why(
    gate: Gate, clock: FakeClock, seen: Seen, max_hold: float, why: str
) -> None:
    """As the keeper would have: it was not to be renewed any longer, or it could not be."""
    gate.admit(claim(max_hold=max_hold), lambda: clock.advance(29), failed)

    assert [lost.why for lost in seen.of(LostEvent)] == [why]


def test_a_failure_under_a_lost_lease_is_a_loss_and_no_result(gate: Gate, store: FlakyStore, seen: Seen) -> None:
    def body() -> None:
        store.expire("k")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gate.admit(claim(), body, failed)

    assert seen.kinds == ["LeaseAcquired", "LeaseLost"]
    assert not store.look("k")


def test_a_loss_is_told_once(gate: Gate, store: FlakyStore, clock: FakeClock, keeper: Keeper, seen: Seen) -> None:
    def body() -> None:
        clock.advance(31)
        keeper.round()
        with pytest.raises(LeaseLost):
            current_lease().ensure()

    gate.admit(claim(), body, failed)

    assert seen.kinds == ["LeaseAcquired", "LeaseLost", "LeaseOutlived"]


def test_a_run_whose_next_generation_took_over_lost_nothing(gate: Gate, store: FlakyStore, seen: Seen) -> None:
    """A retry is published inside the body, and may begin before the body has ended."""

    def body() -> None:
        retry = store.acquire("k", Owner.new("run", 1), 30, heed_cooldown=True)
        assert not isinstance(retry, Held)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gate.admit(claim("run"), body, failed)

    assert seen.kinds == ["LeaseAcquired"]
    assert store.look("k").held is not None


def test_a_run_that_is_passed_on_can_keep_its_key_for_its_next_generation(
    gate: Gate, store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    def body() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gate.admit(claim("run"), body, lambda _: Ending(Kind.PASSED_ON, remember=600, hold=90))

    clock.advance(89)
    assert isinstance(gate.admit(claim("other"), never, failed), Held)
    assert isinstance(gate.admit(claim("run"), never, failed), Done)
    assert gate.admit(claim(owner=Owner.new("run", 1)), lambda: 1, failed) == Admitted(1)
    assert seen.kinds[:2] == ["LeaseAcquired", "LeaseKept"]


def test_a_run_that_ended_well_is_done(gate: Gate, clock: FakeClock) -> None:
    def well(_: BaseException | None) -> Ending:
        return Ending(Kind.WELL, remember=600, told=False)

    gate.admit(claim("run", cooldown=None), lambda: None, well)
    clock.advance(5)

    assert gate.admit(claim("run"), never, failed) == Done("k", 5, told=False)
    assert isinstance(gate.admit(claim("other", cooldown=None), lambda: None, well), Admitted)


def test_a_run_that_failed_runs_again_also_in_its_own_quiet_period(gate: Gate, store: FlakyStore) -> None:
    with pytest.raises(ZeroDivisionError):
        gate.admit(claim("run"), lambda: 1 / 0, failed)
    assert isinstance(gate.admit(claim("other"), never, failed), Cooling)

    assert gate.admit(claim("run"), lambda: 1, failed) == Admitted(1)


def test_the_lease_of_a_dead_run_is_abandoned_and_no_other(gate: Gate, store: FlakyStore, seen: Seen) -> None:
    dead, alive = Owner.new("dead"), Owner.new("alive")
    store.acquire("k", dead, 30, heed_cooldown=True)
    store.acquire("other", alive, 30, heed_cooldown=True)

    gate.abandon("k", dead)
    gate.abandon("k", dead)
    gate.abandon("other", dead)

    assert not store.look("k")
    assert store.look("other").held.holder == str(alive)  # type: ignore[union-attr]
    assert seen.kinds == ["LeaseAbandoned"]


def test_without_an_answer_the_body_does_not_start(gate: Gate, store: FlakyStore) -> None:
    store.away = True

    assert isinstance(gate.admit(claim(), never, failed), Unanswered)
    assert isinstance(gate.admit(claim(ttl=0.0), never, failed), Unanswered)


def test_a_store_that_goes_away_under_a_body_does_not_spoil_its_value(
    gate: Gate, store: FlakyStore, seen: Seen
) -> None:
    def body() -> int:
        store.away = True
        return 42

    assert gate.admit(claim(), body, failed) == Admitted(42)
    assert seen.kinds == ["LeaseAcquired", "StoreFailed"]


def test_an_error_of_the_store_in_a_body_is_the_bodys(gate: Gate) -> None:
    def body() -> None:
        raise StoreError("the body's own")

    with pytest.raises(StoreError, match="the body's own"):
        gate.admit(claim(), body, failed)


def test_an_interrupted_request_leaves_no_lease_behind(gate: Gate, store: FlakyStore) -> None:
    """A time limit may strike after the store has granted the lease and before we know it."""
    granted = store.acquire

    def interrupted(*args: object, **kwargs: object) -> None:
        granted(*args, **kwargs)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    store.acquire = interrupted  # type: ignore[method-assign,assignment]
    with pytest.raises(KeyboardInterrupt):
        gate.admit(claim(), never, failed)

    assert not store.look("k")


def test_a_quiet_period_alone_takes_no_lease(gate: Gate, store: FlakyStore, seen: Seen) -> None:
    lone = claim(ttl=0.0)

    def body() -> None:
        assert store.look("k").held is None
        assert current_lease(None) is None

    assert isinstance(gate.admit(lone, body, failed), Admitted)
    assert isinstance(gate.admit(claim(ttl=0.0), never, failed), Cooling)
    assert seen.kinds == ["CooldownStarted"]
    assert [act for act in store.asked if act not in ("look", "refuses")] == ["cool"]


def test_a_quiet_period_alone_follows_a_failure_too_if_asked(gate: Gate, store: FlakyStore) -> None:
    with pytest.raises(ZeroDivisionError):
        gate.admit(claim(ttl=0.0), lambda: 1 / 0, failed)

    assert store.look("k").cooling.left == 10  # type: ignore[union-attr]


def test_a_loss_is_told_also_where_the_store_is_away_at_the_end(
    gate: Gate, store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    def body() -> None:
        store.away = True
        clock.advance(31)

    gate.admit(claim(), body, failed)

    assert sorted(seen.kinds) == ["LeaseAcquired", "LeaseLost", "LeaseOutlived", "StoreFailed"]


def test_a_lease_that_was_granted_after_we_gave_up_asking_is_nobodys_for_long(
    gate: Gate, store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen
) -> None:
    """4. The request of a run that was not answered may lie in the store's queue, and be granted when it is back."""
    ours = claim()
    store.away = True
    assert isinstance(gate.admit(ours, never, failed), Unanswered)
    store.away = False

    clock.advance(1)
    keeper.round()
    store.acquire("k", ours.owner, 30, heed_cooldown=True)  # it comes after our first try
    clock.advance(1)
    keeper.round()

    assert not store.look("k")
    assert seen.kinds == ["LeaseAbandoned"]
    asked = len(store.asked)
    clock.advance(1)
    keeper.round()
    assert len(store.asked) == asked


def test_what_the_store_did_not_answer_is_settled_when_it_is_back(
    gate: Gate, store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen
) -> None:
    """4. ... within a second, while the process lives; 12. and the cooldown begins in that step."""

    def body() -> None:
        store.away = True

    gate.admit(claim(), body, failed)
    clock.advance(1)
    keeper.round()
    store.away = False
    assert store.look("k").held is not None

    clock.advance(1)
    keeper.round()

    look = store.look("k")
    assert look.held is None
    assert look.cooling is not None
    assert look.cooling.left == 58
    assert seen.kinds == ["LeaseAcquired", "StoreFailed", "LeaseReleased", "CooldownStarted"]


@pytest.mark.parametrize("ttl", [30.0, 0.0], ids=["with a lease", "without"])
def test_a_quiet_period_counts_from_the_end_of_the_body_also_where_it_is_begun_late(
    gate: Gate, store: FlakyStore, keeper: Keeper, seen: Seen, ttl: float
) -> None:
    """13. It ends when it would have ended had the store answered; so does what is remembered of the run."""

    def body() -> None:
        store.away = True

    ours = claim(ttl=ttl)
    gate.admit(ours, body, lambda _: Ending(Kind.WELL, remember=100))
    store.clock.advance(10)
    store.away = False
    keeper.round()

    assert store.look("k").cooling.left == 50  # type: ignore[union-attr]
    assert [event.seconds for event in seen.events if isinstance(event, CooldownStarted)] == [50]
    store.clock.advance(89)
    assert isinstance(gate.admit(ours, never, failed), Done)
    store.clock.advance(2)
    assert isinstance(gate.admit(ours, lambda: None, failed), Admitted)


@pytest.mark.parametrize("ttl", [30.0, 0.0], ids=["with a lease", "without"])
def test_a_quiet_period_that_is_over_before_the_store_is_back_is_not_begun(
    gate: Gate, store: FlakyStore, keeper: Keeper, seen: Seen, ttl: float
) -> None:
    """13. It ends by itself. That the run has ended is remembered all the same."""

    def body() -> None:
        store.away = True

    ours = claim(ttl=ttl, cooldown=Cooldown(5))
    gate.admit(ours, body, lambda _: Ending(Kind.WELL, remember=100))
    store.clock.advance(5)
    store.away = False
    keeper.round()

    assert not store.look("k")
    assert isinstance(gate.admit(ours, never, failed), Done)
    assert "CooldownStarted" not in seen.kinds


def test_a_key_that_is_kept_for_a_retry_is_not_kept_for_longer_where_that_comes_late(
    gate: Gate, store: FlakyStore, keeper: Keeper, clock: FakeClock
) -> None:
    """7. It is held until the retry is due and a ttl more, counted from the end of the body."""

    def body() -> None:
        store.away = True

    gate.admit(claim(), body, lambda _: Ending(Kind.PASSED_ON, remember=600, hold=90))
    clock.advance(10)
    store.away = False
    keeper.round()

    assert store.look("k").held.left == 80  # type: ignore[union-attr]


def test_what_a_run_was_granted_unheard_keeps_nobody_away_who_asks_next_in_its_process(
    gate: Gate, store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen
) -> None:
    """8. No run is dropped in favour of one that does not exist."""
    unheard = claim()
    store.away = True
    gate.admit(unheard, never, failed)
    store.away = False
    store.acquire("k", unheard.owner, 30, heed_cooldown=True)  # it lay in the store's queue

    assert gate.admit(claim(), lambda: 42, failed) == Admitted(42)

    assert seen.kinds[:2] == ["LeaseAbandoned", "LeaseAcquired"]


def test_what_a_run_was_granted_unheard_is_taken_back_before_the_store_is_known_to_be_back(
    gate: Gate, store: FlakyStore, keeper: Keeper
) -> None:
    """8. A store that stalls finds the request that takes it back behind the one that asked for it."""
    store.away = True
    gate.admit(claim(), never, failed)

    keeper.round()

    assert store.asked == ["acquire", "settle"]


def test_of_those_who_were_granted_unheard_none_is_known_for_ever(
    gate: Gate, store: FlakyStore, keeper: Keeper, clock: FakeClock
) -> None:
    store.away = True
    for _ in range(100):
        gate.admit(claim(), never, failed)
        clock.advance(10)
        keeper.round()

    assert len(gate._disowned) < 10


def test_what_the_store_did_not_answer_is_given_up_when_the_lease_has_ended(
    gate: Gate, store: FlakyStore, keeper: Keeper, clock: FakeClock
) -> None:
    def body() -> None:
        store.away = True

    gate.admit(claim(), body, failed)
    for _ in range(31):
        clock.advance(1)
        keeper.round()
    asked = len(store.asked)
    clock.advance(1)
    keeper.round()

    assert len(store.asked) == asked


def test_a_store_that_is_away_is_asked_once_in_a_round_whatever_waits_for_it(
    gate: Gate, store: FlakyStore, keeper: Keeper, clock: FakeClock
) -> None:
    """5. Renewals come first: what is left for later does not keep them waiting, one time-out after another."""
    store.away = True
    for _ in range(5):
        gate.admit(claim(), never, failed)
    asked = len(store.asked)

    clock.advance(1)
    keeper.round()

    assert len(store.asked) == asked + 1
