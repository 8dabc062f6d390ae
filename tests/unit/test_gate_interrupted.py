"""A time limit or a shutdown may strike a worker's child between any two steps."""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time
from collections.abc import Iterator

import pytest
from doubles import Seen
from local_processes import wait_until

from celery_coord.clock import SystemClock
from celery_coord.gate import Claim, Ending, Gate, Kind, current_lease
from celery_coord.lease import Owner
from celery_coord.renewal import Keeper
from celery_coord.stores.memory import MemoryStore

ROUNDS = 10_000


class TimeLimit(Exception):
    """What a soft time limit raises."""


@pytest.fixture
def armed() -> Iterator[list[bool]]:
    armed = [False]

    def strike(*_: object) -> None:
        if armed[0]:
            raise TimeLimit

    before = signal.signal(signal.SIGALRM, strike)
    yield armed
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupted_run_leaves_no_lease_behind_and_none_that_is_renewed(armed: list[bool], seen: Seen) -> None:
    clock = SystemClock()
    store = MemoryStore(clock)
    keeper = Keeper(store, clock, lambda _: None)
    gate = Gate(store, keeper, clock, lambda _: None)

    def admit(owner: Owner) -> None:
        gate.admit(Claim(str(owner), owner, ttl=30, max_hold=86_400), lambda: None, lambda _: Ending(Kind.FAILED))

    took = []
    for _ in range(200):
        began = time.perf_counter()
        admit(Owner.new("warm"))
        took.append(time.perf_counter() - began)
    usual = statistics.median(took)
    struck = 0
    owners = [Owner.new("run") for _ in range(ROUNDS)]
    for owner in owners:
        armed[0] = True
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 1.3 * usual))
            admit(owner)
        except TimeLimit:
            struck += 1
        finally:
            armed[0] = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert str(owner) not in keeper._holdings
        assert current_lease(None) is None

    assert struck > ROUNDS / 20
    # What was granted to one who heard no more of it is given back by the keeper.
    wait_until(lambda: not any(store.look(str(owner)).held for owner in owners), "keys that are free")
    free: list[bool] = []
    thread = threading.Thread(target=lambda: free.append(keeper._lock.acquire(timeout=30)))
    thread.start()
    thread.join()
    assert free == [True]
