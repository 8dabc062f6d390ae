"""The election, round by round, on a clock that is moved by hand."""

from __future__ import annotations

import random

import pytest
from doubles import FlakyStore, Seen

from celery_coord.election import Election
from celery_coord.errors import StoreError
from celery_coord.events import Event, LeaderDeposed, LeaderElected, LeaderObserved, LeaderResigned
from celery_coord.lease import Held
from celery_coord.stores.memory import MemoryStore
from celery_coord.testing import FakeClock

TTL = 10.0


def candidate(store: MemoryStore, clock: FakeClock, seen: Seen, **options: object) -> Election:
    return Election("beat", store=store, clock=clock, ttl=TTL, label="here", notify=seen, **options)  # type: ignore[arg-type]


@pytest.fixture
def one(store: FlakyStore, clock: FakeClock, seen: Seen) -> Election:
    return candidate(store, clock, seen)


@pytest.fixture
def two(store: FlakyStore, clock: FakeClock, seen: Seen) -> Election:
    return candidate(store, clock, seen)


def test_nobody_leads_before_it_was_elected(one: Election) -> None:
    assert not one.leads
    assert one.term is None
    assert one.observe() is None


def test_of_two_that_campaign_one_leads_and_the_other_knows_whom_it_met(
    one: Election, two: Election, seen: Seen
) -> None:
    one.round()
    two.round()

    assert one.leads
    assert not two.leads
    met = two.observe()
    assert isinstance(met, Held)
    assert met.token == one.term
    assert seen.kinds == ["LeaderElected", "LeaderObserved"]
    two.round()
    assert len(seen.of(LeaderObserved)) == 1, "told once for each leader that it meets"


def test_to_ask_whether_one_leads_costs_no_round_trip(one: Election, store: FlakyStore) -> None:
    one.round()
    asked = len(store.asked)

    assert one.leads
    assert one.term
    assert len(store.asked) == asked


def test_a_leader_renews_every_third_of_its_ttl_and_leads_on(one: Election, two: Election, clock: FakeClock) -> None:
    one.round()
    for _ in range(30):
        clock.advance(TTL / 3)
        assert one.round() == pytest.approx(TTL / 3)
        two.round()

    assert one.leads
    assert not two.leads


def test_a_follower_asks_again_as_soon_as_the_lease_it_met_should_have_ended(
    one: Election, two: Election, clock: FakeClock
) -> None:
    one.round()
    clock.advance(4)

    assert two.round() == pytest.approx(TTL - 4, abs=0.1)


def test_after_a_crash_another_takes_over_within_the_ttl_and_a_second(
    one: Election, two: Election, clock: FakeClock
) -> None:
    one.round()
    crashed = one.term
    pause = two.round()

    clock.advance(pause)
    two.round()

    assert pause <= TTL + 1
    assert two.leads
    assert two.term is not None
    assert crashed is not None
    assert two.term > crashed


def test_after_a_resignation_another_takes_over_at_once(one: Election, two: Election, seen: Seen) -> None:
    one.round()
    one._give_up(one._term)  # type: ignore[arg-type]
    two.round()

    assert not one.leads
    assert two.leads
    assert seen.kinds == ["LeaderElected", "LeaderResigned", "LeaderElected"]


def test_a_paused_leader_that_wakes_does_not_lead(one: Election, two: Election, clock: FakeClock, seen: Seen) -> None:
    one.round()
    clock.advance(TTL)  # one is paused: it makes no rounds
    two.round()

    assert not one.leads
    assert two.leads
    one.round()
    assert seen.kinds == ["LeaderElected", "LeaderElected", "LeaderDeposed"]


def test_a_leader_without_a_store_leads_until_its_window_closes_and_not_longer(
    one: Election, store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    one.round()
    store.away = True
    led: list[float] = []
    for _ in range(100):
        clock.advance(0.1)
        one.round()
        if one.leads:
            led.append(clock.monotonic())

    assert 9.0 <= led[-1] < TTL
    assert isinstance(seen.of(LeaderDeposed)[0], LeaderDeposed)


def test_a_follower_without_a_store_stays_a_follower_and_asks_again(one: Election, store: FlakyStore) -> None:
    store.away = True

    assert 0 < one.round() <= TTL / 3
    assert not one.leads
    store.away = False
    one.round()
    assert one.leads


def test_a_leader_whose_lease_was_forgotten_follows_at_its_next_renewal(
    one: Election, store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    one.round()
    store.expire("leader:beat")
    clock.advance(TTL / 3)
    one.round()

    assert not one.leads
    assert [event.why for event in seen.of(LeaderDeposed)] == ["gone"]  # type: ignore[union-attr]


def test_a_slow_answer_does_not_lengthen_the_trust_window(one: Election, store: FlakyStore, clock: FakeClock) -> None:
    store.slow = 6.0
    one.round()
    store.slow = 0.0

    clock.advance(3.6)

    assert not one.leads


def test_a_leader_whose_work_is_stuck_resigns_and_does_not_campaign(
    store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    well = [True]
    stuck = candidate(store, clock, seen, healthy=lambda: well[0])
    stuck.round()
    well[0] = False

    stuck.round()
    stuck.round()

    assert not stuck.leads
    assert seen.kinds == ["LeaderElected", "LeaderResigned"]
    assert not store.look("leader:beat")
    well[0] = True
    stuck.round()
    assert stuck.leads


def test_a_campaign_in_a_thread_elects_and_resigns_twice_without_harm(store: FlakyStore, seen: Seen) -> None:
    from celery_coord.clock import SystemClock

    election = Election("beat", store=store, clock=SystemClock(), ttl=TTL, label="", notify=seen)
    election.campaign()
    election.campaign()
    while not election.leads:
        pass
    election.resign()
    election.resign()

    assert not election.leads
    assert seen.kinds == ["LeaderElected", "LeaderResigned"]
    assert not store.look("leader:beat")


def test_the_thread_of_a_campaign_outlives_a_surprise(store: FlakyStore, seen: Seen) -> None:
    from celery_coord.clock import SystemClock

    surprises = [RuntimeError("surprise")]
    acquire = store.acquire

    def surprising(*args: object, **kwargs: object) -> object:
        if surprises:
            raise surprises.pop()
        return acquire(*args, **kwargs)  # type: ignore[arg-type]

    store.acquire = surprising  # type: ignore[method-assign,assignment]
    election = Election("beat", store=store, clock=SystemClock(), ttl=0.3, label="", notify=seen)
    election.campaign()
    while not seen.of(LeaderElected):
        pass
    election.resign()

    assert seen.kinds[0] == "StoreFailed"


class Unreliable(MemoryStore):
    """Loses requests, and answers; takes its time."""

    def __init__(self, clock: FakeClock, chance: random.Random) -> None:
        super().__init__(clock)
        self.clock = clock
        self.chance = chance

    def acquire(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        return self._unreliably(lambda: super(Unreliable, self).acquire(*args, **kwargs))  # type: ignore[arg-type]

    def renew(self, leases: object) -> object:  # type: ignore[override]
        return self._unreliably(lambda: super(Unreliable, self).renew(leases))  # type: ignore[arg-type]

    def settle(self, *args: object, **kwargs: object) -> object:  # type: ignore[override]
        return self._unreliably(lambda: super(Unreliable, self).settle(*args, **kwargs))  # type: ignore[arg-type]

    def _unreliably(self, act: object) -> object:
        self.clock.advance(self.chance.choice([0, 0, 0.01, 0.5, 3, 12]))
        if self.chance.random() < 0.1:
            raise StoreError("the request was lost")
        answer = act()  # type: ignore[operator]
        self.clock.advance(self.chance.choice([0, 0, 0.01, 0.5, 3, 12]))
        if self.chance.random() < 0.1:
            raise StoreError("the answer was lost")
        return answer


@pytest.mark.parametrize("seed", range(200))
def test_two_never_both_act_inside_their_trust_windows(seed: int) -> None:
    """Thousands of rounds of delay, loss, pause and crash: unsure means no, and terms only grow."""
    chance, clock = random.Random(seed), FakeClock()
    store = Unreliable(clock, chance)
    terms: list[int] = []

    def note(event: Event) -> None:
        if isinstance(event, LeaderElected):
            terms.append(event.term)

    def new() -> Election:
        return Election("beat", store=store, clock=clock, ttl=TTL, label="", notify=note)

    candidates = [new() for _ in range(3)]
    for _ in range(200):
        number = chance.randrange(3)
        fate = chance.random()
        if fate < 0.03:
            candidates[number] = new()  # a crash: nothing is given up
        elif fate < 0.06 and candidates[number]._term is not None:
            candidates[number]._give_up(candidates[number]._term)  # type: ignore[arg-type]
        else:
            candidates[number].round()
        clock.advance(chance.choice([0, 0.1, 1, TTL / 3, TTL / 3, TTL]))
        assert sum(one.leads for one in candidates) <= 1

    assert terms
    assert terms == sorted(set(terms))


def test_a_resignation_tells_its_term(one: Election, seen: Seen) -> None:
    one.round()
    term = one.term
    one._give_up(one._term)  # type: ignore[arg-type]

    assert [event.term for event in seen.of(LeaderResigned)] == [term]  # type: ignore[union-attr]
