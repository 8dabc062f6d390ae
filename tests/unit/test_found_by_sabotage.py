"""What no test noticed when it was broken on purpose: see ``python -m tests.sabotage``."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from celery import Celery
from doubles import FlakyStore, Seen

from celery_coord import current_lease, delivery
from celery_coord.app import coordination
from celery_coord.beat import LeaderScheduler
from celery_coord.election import Candidate
from celery_coord.gate import Claim, Ending, Gate, Kind
from celery_coord.interrupt import Interrupt
from celery_coord.lease import Done, Lease, Owner
from celery_coord.policy import Cooldown
from celery_coord.renewal import Holding, Keeper
from celery_coord.testing import FakeClock, use_memory

TTL = 30.0


class StillKeeper(Keeper):
    """Without its thread: the test makes the rounds."""

    def watch(self, holding: Holding) -> None:
        self._holdings[holding.lease.owner] = holding


@pytest.fixture
def keeper(store: FlakyStore, clock: FakeClock, seen: Seen) -> Keeper:
    return StillKeeper(store, clock, seen)


@pytest.fixture
def gate(store: FlakyStore, keeper: Keeper, clock: FakeClock, seen: Seen) -> Gate:
    return Gate(store, keeper, clock, seen)


@pytest.fixture
def app(clock: FakeClock) -> Iterator[Celery]:
    with Celery("found", broker="memory://", set_as_current=False) as app:
        use_memory(app, clock)
        yield app


def claim() -> Claim:
    return Claim("k", Owner.new("run"), ttl=TTL, max_hold=3600)


def well(_: BaseException | None) -> Ending:
    return Ending(Kind.WELL)


def test_the_trust_in_a_slow_grant_counts_from_before_it_was_asked(
    gate: Gate, store: FlakyStore, clock: FakeClock
) -> None:
    """5. A holder that cannot renew knows it, in time: whatever the network did, it stops believing first."""
    store.slow = 10.0

    def body() -> None:
        store.slow = 0.0
        store.away = True
        clock.advance(TTL * 0.94 - 10.0)
        assert not current_lease().lost
        clock.advance(TTL * 0.02)
        assert current_lease().lost

    gate.admit(claim(), body, well)


def test_a_lease_that_is_no_longer_trusted_earns_nothing_though_the_store_still_has_it(
    gate: Gate, store: FlakyStore, clock: FakeClock
) -> None:
    """12. The cooldown begins only if the lease was still ours, by the holder's own clock as well."""

    def body() -> None:
        clock.advance(TTL * 0.96)
        assert store.look("k").held

    gate.admit(replace(claim(), cooldown=Cooldown(60)), body, well)

    assert not store.look("k")


def test_the_gate_has_the_lease_of_a_body_renewed(
    gate: Gate, store: FlakyStore, clock: FakeClock, keeper: Keeper
) -> None:
    """5. The lease is renewed while the body runs."""

    def body() -> None:
        for _ in range(6):
            clock.advance(TTL / 3)
            keeper.round()
        assert not current_lease().lost

    gate.admit(claim(), body, well)

    assert "renew" in store.asked


def test_the_gate_has_no_lease_renewed_after_its_body(
    gate: Gate, store: FlakyStore, clock: FakeClock, keeper: Keeper
) -> None:
    """6. What was settled is never renewed."""
    gate.admit(claim(), lambda: None, well)

    clock.advance(TTL / 3)
    keeper.round()

    assert "renew" not in store.asked


def test_a_run_is_remembered_for_as_long_as_its_own_quiet_period_lasts(store: FlakyStore, clock: FakeClock) -> None:
    """7. If the earlier delivery succeeded it ends as a duplicate: its own quiet period would not refuse it."""
    lease = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True)
    assert isinstance(lease, Lease)
    store.settle(lease, cooldown=3600, remember=600)
    store.cool("other", Owner.new("run"), 3600, remember=600)

    clock.advance(3599)

    for key in ("k", "other"):
        assert isinstance(store.acquire(key, Owner.new("run"), TTL, heed_cooldown=True), Done)


def test_a_child_coordinates_by_itself(app: Celery) -> None:
    """5. The lease is renewed also in a worker's child: the keeper's thread does not survive a fork."""
    ours = coordination(app)

    child = os.fork()
    if child == 0:
        try:
            found = coordination(app)
            os._exit(0 if found is not ours and found.keeper is not ours.keeper else 1)
        finally:
            os._exit(2)

    assert os.waitpid(child, 0)[1] == 0
    assert coordination(app) is ours


class NobodyDies:
    """Children that live for as long as there is a test."""

    def watch(self, pid: int) -> None:
        """No system is asked."""

    def wait(self, timeout: float | None = None) -> list[int]:
        threading.Event().wait()
        return []


def test_the_parent_keeps_what_a_child_began_until_it_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """4. However a task ends: past a hard limit the pool forgets the request before it kills the child."""
    monkeypatch.setattr(delivery, "deaths", NobodyDies)
    children = delivery._Children()
    request = object.__new__(delivery.Request)

    children.has_begun(4711, request)
    del request
    gc.collect()

    assert 4711 in children._latest


def test_a_lease_that_ends_after_its_body_interrupts_nobody(clock: FakeClock) -> None:
    """6. An interruption is for the run that lost its lease, and not for what comes after its body."""
    holding = Holding(Lease("k", "run/0/nonce", 1, 0.1), clock, asked_at=clock.monotonic(), max_hold=3600)

    with Interrupt(holding):
        pass
    clock.advance(0.1)
    time.sleep(0.3)

    assert holding.lost


def test_a_beat_whose_loop_is_stuck_stops_leading(app: Celery, clock: FakeClock) -> None:
    """16. A beat whose loop is stuck stops leading."""
    beat = LeaderScheduler(app=app)
    election = beat._candidate
    assert election is not None
    election.round()
    assert election.leads

    for _ in range(3):  # its lease is renewed in between, so that only a resignation can explain a free key
        clock.advance(4)
        election.round()

    assert not election.leads
    assert not coordination(app).store.look("leader:beat")
    beat.close()


def test_a_beat_that_only_shows_its_banner_does_not_campaign(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    """14. Celery makes a scheduler for the banner as well: it would lead, and send nothing."""
    campaigns: list[Candidate] = []
    monkeypatch.setattr(Candidate, "campaign", campaigns.append)

    LeaderScheduler(app=app, lazy=True).tick()

    assert campaigns == []
