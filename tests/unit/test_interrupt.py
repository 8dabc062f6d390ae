"""A body that loses its lease is interrupted in the main thread, once, and nothing else is."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from doubles import FlakyStore, Seen
from local_processes import wait_until

from celery_coord import interrupt
from celery_coord.clock import Clock, SystemClock
from celery_coord.errors import LeaseLost
from celery_coord.gate import Admitted, Claim, Ending, Gate, Kind, current_lease
from celery_coord.interrupt import Interrupt
from celery_coord.lease import Lease, Owner
from celery_coord.renewal import Holding, Keeper
from celery_coord.stores.memory import MemoryStore
from celery_coord.testing import FakeClock


@pytest.fixture(autouse=True)
def handler() -> Iterator[list[int]]:
    """What was installed before us, and which signals it got."""
    got: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, _: got.append(number))
    yield got
    for thread in threading.enumerate():
        if thread.name == "celery_coord-interrupt":
            thread.join(30)  # it may be about to send its last signal
    signal.signal(signal.SIGURG, before)


def held_for(ttl: float, clock: Clock | None = None, *, key: str = "k") -> Holding:
    clock = clock or SystemClock()
    return Holding(Lease(key, "run/0/nonce", 1, ttl), clock, asked_at=clock.monotonic(), max_hold=3600)


def let_pass(clock: FakeClock, seconds: float, *, soon: float = 0.0) -> None:
    """In another thread: a handler of signals that strikes this one reads the clock."""
    threading.Timer(soon, clock.advance, (seconds,)).start()


def block() -> None:
    """One call that ends by an interruption alone."""
    time.sleep(30)
    pytest.fail("it was not interrupted")


def test_a_call_that_blocks_is_interrupted_when_trust_ends() -> None:
    with pytest.raises(LeaseLost, match="the lease on k is lost"), Interrupt(held_for(0.2)):
        block()


def test_a_call_that_blocks_is_interrupted_when_the_keeper_finds_the_lease_gone(
    store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    keeper = Keeper(store, clock, seen)
    lease = store.acquire("k", Owner.new("run"), 30, heed_cooldown=False)
    assert isinstance(lease, Lease)
    holding = Holding(lease, clock, asked_at=clock.monotonic(), max_hold=3600)
    keeper.watch(holding)

    def rob() -> None:
        store.expire("k")
        clock.advance(11)
        keeper.round()

    threading.Timer(0.1, rob).start()
    with pytest.raises(LeaseLost), Interrupt(holding):
        block()


def test_a_body_that_goes_on_is_interrupted_once(clock: FakeClock) -> None:
    holding = held_for(0.1, clock)

    def lose_it() -> None:
        let_pass(clock, 0.1)
        block()

    with Interrupt(holding):
        with pytest.raises(LeaseLost):
            lose_it()
        time.sleep(0.3)  # some times as long as it takes to send the signal again

    assert holding.lost


def test_a_body_that_has_ended_is_not_interrupted() -> None:
    with pytest.raises(LeaseLost), Interrupt(held_for(0.05)):
        block()

    signal.raise_signal(signal.SIGURG)  # one that was under way when the body ended
    time.sleep(0.1)


@pytest.mark.parametrize(("outer_ttl", "inner_ttl"), [(0.5, 0.1), (0.1, 0.4)])
def test_the_inner_body_alone_is_interrupted_and_then_the_outer_one(
    clock: FakeClock, outer_ttl: float, inner_ttl: float
) -> None:
    """Whichever of them was lost first: an eager run is part of its caller's body."""
    outer, inner = held_for(outer_ttl, clock, key="outer"), held_for(inner_ttl, clock, key="inner")

    def body() -> None:
        try:
            with Interrupt(inner):
                let_pass(clock, min(outer_ttl, inner_ttl))
                let_pass(clock, inner_ttl - min(outer_ttl, inner_ttl), soon=0.2)
                block()
        except LeaseLost as lost:
            if lost.key == "inner":  # else the outer one was struck in the moment in which the inner one ended
                let_pass(clock, outer_ttl)
                block()
            raise

    with pytest.raises(LeaseLost) as last, Interrupt(outer):
        body()

    first = last.value.__context__
    assert isinstance(first, LeaseLost)
    assert (first.key, last.value.key) == ("inner", "outer")


def test_a_soft_time_limit_is_none_of_our_business(clock: FakeClock) -> None:
    """Celery's pool sends it by SIGUSR1, also in the moment in which a lease is lost."""
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: got.append(number))

    def body() -> None:
        signal.raise_signal(signal.SIGUSR1)
        let_pass(clock, 0.1)
        block()

    with pytest.raises(LeaseLost), Interrupt(held_for(0.1, clock)):
        body()
    signal.raise_signal(signal.SIGUSR1)

    assert got == [signal.SIGUSR1] * 2
    signal.signal(signal.SIGUSR1, before)


def test_a_signal_that_we_did_not_send_goes_where_it_went_before(handler: list[int]) -> None:
    with Interrupt(held_for(3600)):
        signal.raise_signal(signal.SIGURG)
    signal.raise_signal(signal.SIGURG)

    assert handler == [signal.SIGURG] * 2


def test_a_handler_that_was_installed_after_us_is_found_again(handler: list[int]) -> None:
    with Interrupt(held_for(3600)):
        pass
    later: list[int] = []
    signal.signal(signal.SIGURG, lambda number, _: later.append(number))

    with Interrupt(held_for(3600)):
        signal.raise_signal(signal.SIGURG)

    assert (handler, later) == ([], [signal.SIGURG])


def in_a_thread(act: Callable[[], object]) -> object:
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(act()))
    thread.start()
    thread.join()
    return answers[0]


def test_only_the_main_thread_can_be_interrupted() -> None:
    assert interrupt.is_possible()
    assert in_a_thread(interrupt.is_possible) is False


def test_a_body_in_another_thread_runs_without(seen: Seen) -> None:
    clock = SystemClock()
    store = MemoryStore(clock)
    gate = Gate(store, Keeper(store, clock, seen), clock, seen)
    claim = Claim("k", Owner.new("run"), ttl=0.2, max_hold=0.01, raise_on_loss=True)

    def body() -> bool:
        wait_until(lambda: current_lease().lost, "it is lost")
        return current_lease().lost

    assert in_a_thread(lambda: gate.admit(claim, body, lambda _: Ending(Kind.WELL))) == Admitted(value=True)


def test_the_gate_interrupts_where_it_is_asked_to(seen: Seen) -> None:
    clock = SystemClock()
    store = MemoryStore(clock)
    gate = Gate(store, Keeper(store, clock, seen), clock, seen)

    with pytest.raises(LeaseLost):
        gate.admit(
            Claim("k", Owner.new("run"), ttl=0.2, max_hold=0.01, raise_on_loss=True),
            block,
            lambda _: Ending(Kind.FAILED),
        )

    assert store.look("k").held is None
    assert "LeaseOutlived" not in seen.kinds


def test_a_handler_that_calls_the_one_before_it_ends(handler: list[int]) -> None:
    """One that was installed after ours, and rightly calls ours; which is what it finds before itself the next time."""
    with Interrupt(held_for(3600)):
        pass
    ours, theirs = signal.getsignal(signal.SIGURG), []

    def polite(number: int, frame: object) -> None:
        theirs.append(number)
        ours(number, frame)  # type: ignore[operator,misc,arg-type]

    signal.signal(signal.SIGURG, polite)
    with Interrupt(held_for(3600)):
        signal.raise_signal(signal.SIGURG)

    assert theirs == [signal.SIGURG]


def test_a_lease_that_was_settled_interrupts_nobody(clock: FakeClock) -> None:
    """A time limit may strike between the end of a body and the end of its interruption."""
    holding = held_for(0.05, clock)
    stale = Interrupt(holding)
    stale.__enter__()

    holding.ended = True
    clock.advance(0.05)
    time.sleep(0.2)
    signal.raise_signal(signal.SIGURG)

    assert holding.lost
    stale.__exit__(None, None, None)
