"""The election, round by round, on a clock that is moved by hand."""

from __future__ import annotations

import random

import pytest
from doubles import FlakyStore, Seen

from celery_coord.election import Candidate
from celery_coord.errors import StoreError
from celery_coord.events import (
    ComponentFailed,
    Event,
    LeaderDeposed,
    LeaderElected,
    LeaderHeldBack,
    LeaderObserved,
    LeaderResigned,
)
from celery_coord.leader import RUN, leader_of
from celery_coord.lease import Held, Owner
from celery_coord.stores.memory import MemoryStore
from celery_coord.testing import FakeClock

TTL = 10.0


def candidate(store: MemoryStore, clock: FakeClock, seen: Seen, **options: object) -> Candidate:
    return Candidate("beat", store=store, clock=clock, ttl=TTL, label="here", notify=seen, **options)  # type: ignore[arg-type]


@pytest.fixture
def one(store: FlakyStore, clock: FakeClock, seen: Seen) -> Candidate:
    return candidate(store, clock, seen)


@pytest.fixture
def two(store: FlakyStore, clock: FakeClock, seen: Seen) -> Candidate:
    return candidate(store, clock, seen)


def test_nobody_leads_before_it_was_elected(one: Candidate) -> None:
    assert not one.leads
    assert one.term is None
    assert one.met is None


def test_of_two_that_campaign_one_leads_and_the_other_knows_whom_it_met(
    one: Candidate, two: Candidate, seen: Seen
) -> None:
    one.round()
    two.round()

    assert one.leads
    assert not two.leads
    met = two.met
    assert isinstance(met, Held)
    assert met.token == one.term
    assert seen.kinds == ["LeaderElected", "LeaderObserved"]
    two.round()
    assert len(seen.of(LeaderObserved)) == 1, "told once for each leader that it meets"


def test_to_ask_whether_one_leads_costs_no_round_trip(one: Candidate, store: FlakyStore) -> None:
    one.round()
    asked = len(store.asked)

    assert one.leads
    assert one.term
    assert len(store.asked) == asked


def test_a_leader_renews_every_third_of_its_ttl_and_leads_on(one: Candidate, two: Candidate, clock: FakeClock) -> None:
    one.round()
    for _ in range(30):
        clock.advance(TTL / 3)
        assert one.round() == pytest.approx(TTL / 3)
        two.round()

    assert one.leads
    assert not two.leads


def test_a_follower_asks_again_as_soon_as_the_lease_it_met_should_have_ended(
    one: Candidate, two: Candidate, clock: FakeClock
) -> None:
    one.round()
    clock.advance(4)

    assert two.round() == pytest.approx(TTL - 4, abs=0.1)


def test_after_a_crash_another_takes_over_within_the_ttl_and_a_second(
    one: Candidate, two: Candidate, clock: FakeClock
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


def test_after_a_resignation_another_takes_over_at_once(one: Candidate, two: Candidate, seen: Seen) -> None:
    one.round()
    one._give_up(one._term, "ended")  # type: ignore[arg-type]
    two.round()

    assert not one.leads
    assert two.leads
    assert seen.kinds == ["LeaderElected", "LeaderResigned", "LeaderElected"]


def test_a_paused_leader_that_wakes_does_not_lead(one: Candidate, two: Candidate, clock: FakeClock, seen: Seen) -> None:
    one.round()
    clock.advance(TTL)  # one is paused: it makes no rounds
    two.round()

    assert not one.leads
    assert one.term is None
    assert one.lease is None
    assert one.trusted_for == 0
    assert two.leads
    one.round()
    assert seen.kinds == ["LeaderElected", "LeaderElected", "LeaderDeposed"]


def test_a_leader_that_resigns_knows_it_before_the_store_does(one: Candidate, store: FlakyStore) -> None:
    """14. Two never both lead: who acts while the store is asked must already find that it does not lead."""
    one.round()
    led: list[bool] = []
    settle = store.settle

    def look(*args: object, **kwargs: object) -> bool:
        led.append(one.leads)
        return settle(*args, **kwargs)  # type: ignore[arg-type]

    store.settle = look  # type: ignore[method-assign]
    one._give_up(one._term, "ended")  # type: ignore[arg-type]

    assert led == [False]


def test_a_leader_without_a_store_leads_until_its_window_closes_and_not_longer(
    one: Candidate, store: FlakyStore, clock: FakeClock, seen: Seen
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


def test_a_follower_without_a_store_stays_a_follower_and_asks_again(one: Candidate, store: FlakyStore) -> None:
    store.away = True

    assert 0 < one.round() <= TTL / 3
    assert not one.leads
    store.away = False
    one.round()
    assert one.leads


def test_a_leader_whose_lease_was_forgotten_follows_at_its_next_renewal(
    one: Candidate, store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    one.round()
    store.expire("leader:beat")
    clock.advance(TTL / 3)
    one.round()

    assert not one.leads
    assert [event.why for event in seen.of(LeaderDeposed)] == ["gone"]  # type: ignore[union-attr]


def test_a_slow_answer_does_not_lengthen_the_trust_window(one: Candidate, store: FlakyStore, clock: FakeClock) -> None:
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
    assert seen.kinds == ["LeaderElected", "LeaderResigned", "LeaderHeldBack", "LeaderHeldBack"]
    assert not store.look("leader:beat")
    well[0] = True
    clock.advance(TTL / 3)
    stuck.round()
    assert stuck.leads


def test_a_campaign_in_a_thread_elects_and_resigns_twice_without_harm(store: FlakyStore, seen: Seen) -> None:
    from celery_coord.clock import SystemClock

    election = Candidate("beat", store=store, clock=SystemClock(), ttl=TTL, label="", notify=seen)
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
    election = Candidate("beat", store=store, clock=SystemClock(), ttl=0.3, label="", notify=seen)
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
        try:
            return self._unreliably(lambda: super(Unreliable, self).renew(leases))  # type: ignore[arg-type]
        except StoreError as error:
            return [error] * len(leases)  # type: ignore[arg-type]

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

    def new() -> Candidate:
        limit = chance.choice([None, TTL, 3 * TTL])
        return Candidate("beat", store=store, clock=clock, ttl=TTL, label="", notify=note, term_limit=limit)

    candidates = [new() for _ in range(3)]
    for _ in range(200):
        number = chance.randrange(3)
        fate = chance.random()
        if fate < 0.03:
            candidates[number] = new()  # a crash: nothing is given up
        elif fate < 0.06 and candidates[number]._term is not None:
            candidates[number]._give_up(candidates[number]._term, "ended")  # type: ignore[arg-type]
        elif fate < 0.08:
            candidates[number].step_down(candidates[number].retiring or "unable")
        elif fate < 0.10:
            store.ask("leader:beat", str(candidates[number].term), TTL)
        else:
            candidates[number].round()
        clock.advance(chance.choice([0, 0.1, 1, TTL / 3, TTL / 3, TTL]))
        assert sum(one.leads for one in candidates) <= 1

    assert terms
    assert terms == sorted(set(terms))


def test_a_resignation_tells_its_term(one: Candidate, seen: Seen) -> None:
    one.round()
    term = one.term
    one._give_up(one._term, "ended")  # type: ignore[arg-type]

    assert [event.term for event in seen.of(LeaderResigned)] == [term]  # type: ignore[union-attr]


def test_a_leader_whose_resignation_the_store_did_not_hear_says_so(
    one: Candidate, store: FlakyStore, seen: Seen
) -> None:
    """What the store does not know did not happen: the lease ends by itself."""
    one.round()
    store.away = True

    one._give_up(one._term, "ended")  # type: ignore[arg-type]

    assert not one.leads
    assert [event.why for event in seen.of(LeaderDeposed)] == ["unsettled"]  # type: ignore[union-attr]
    assert not seen.of(LeaderResigned)


def rounds(election: Candidate, clock: FakeClock, seconds: float) -> list[float]:
    """Make the rounds as its thread would, for so long; returns when it led."""
    led, end = [], clock.monotonic() + seconds
    while clock.monotonic() < end:
        pause = election.round()
        if election.leads:
            led.append(clock.monotonic())
        clock.advance(max(0.01, min(pause, 1.0)))
    return led


def test_a_term_that_reaches_its_limit_is_retiring_and_then_over(
    store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    """A term limit makes a healthy leader hand over now and then; where nobody steps down, the term ends by itself."""
    limited = candidate(store, clock, seen, term_limit=60)
    limited.round()
    first = limited.term
    rounds(limited, clock, 61)

    assert limited.retiring == "limit"
    assert limited.term == first, "it still leads, so that its work can be brought to an end"
    rounds(limited, clock, TTL - 0.5)
    assert not limited.leads
    assert [event.why for event in seen.of(LeaderResigned)] == ["limit"]  # type: ignore[union-attr]
    [held_back] = seen.of(LeaderHeldBack)
    assert held_back.seconds == TTL / 10  # type: ignore[union-attr]


def test_after_its_limit_another_takes_over_and_where_there_is_none_it_leads_again(
    store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    limited, other = candidate(store, clock, seen, term_limit=60), candidate(store, clock, seen)
    limited.round()
    limited.step_down("limit")
    limited.round()

    assert other.round()
    assert other.leads
    other.step_down("limit")
    other.round()
    clock.advance(1.1)
    limited.round()
    assert limited.leads


def test_one_who_steps_down_does_not_lead_from_that_moment_on(one: Candidate, store: FlakyStore) -> None:
    one.round()
    asked = len(store.asked)

    one.step_down()

    assert not one.leads
    assert one.term is None
    assert one.trusted_for == 0
    assert len(store.asked) == asked, "it is known before the store is asked"
    one.round()
    assert not store.look("leader:beat")


def test_a_leader_that_is_asked_to_step_down_does_so_and_stays_out_for_a_ttl(
    one: Candidate, two: Candidate, store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    one.round()
    store.ask("leader:beat", str(one.term), 60)
    clock.advance(TTL / 3)
    one.round()
    assert one.retiring == "asked"

    one.step_down(one.retiring)
    one.round()
    assert not rounds(one, clock, TTL - 1), "another is to be elected"

    two.round()
    assert two.leads
    clock.advance(TTL / 3)
    two.round()
    assert not two.retiring, "the request was for the term of then"


def test_a_request_for_another_term_is_not_heard(one: Candidate, store: FlakyStore, clock: FakeClock) -> None:
    store.ask("leader:beat", "12345", 60)
    one.round()
    clock.advance(TTL / 3)

    one.round()

    assert not one.retiring


def test_leadership_does_not_flap(one: Candidate, clock: FakeClock, seen: Seen) -> None:
    """Flapping is damped: each term that ends soon makes the candidate hold back for longer, up to three ttls."""
    for _ in range(8):
        while not one.leads:
            clock.advance(max(0.0, one.round()))
        one.step_down("unable")
        one.round()

    paused = [event.seconds for event in seen.of(LeaderHeldBack)]  # type: ignore[union-attr]
    assert paused == pytest.approx([TTL / 3, TTL * 2 / 3, TTL * 4 / 3, TTL * 8 / 3, *[TTL * 3] * 4])


def test_a_term_that_lasted_ends_the_holding_back(one: Candidate, clock: FakeClock, seen: Seen) -> None:
    one.round()
    one.step_down()
    one.round()
    clock.advance(TTL)
    one.round()
    rounds(one, clock, 3 * TTL)

    one.step_down()
    one.round()

    paused = [event.seconds for event in seen.of(LeaderHeldBack)]  # type: ignore[union-attr]
    assert paused == pytest.approx([TTL / 3, TTL / 10])


def test_a_stuck_candidate_says_once_that_it_does_not_campaign(store: FlakyStore, clock: FakeClock, seen: Seen) -> None:
    """A candidate that cannot take over says why."""
    stuck = candidate(store, clock, seen, healthy=lambda: False)

    for _ in range(5):
        assert 0 < stuck.round() <= 1

    assert [(event.why, event.seconds) for event in seen.of(LeaderHeldBack)] == [("stuck", None)]  # type: ignore[union-attr]
    assert not store.look("leader:beat")


def test_observers_see_who_leads_since_when_and_what_was_done_last(
    one: Candidate, store: FlakyStore, clock: FakeClock
) -> None:
    """Who leads, since when, term, last act; labels that observers see."""
    assert leader_of(store, "beat") is None
    one.round()
    elected_at = clock.time()
    clock.advance(1)
    one.acted("polled the moon")
    acted_at = clock.time()
    clock.advance(TTL / 3 - 1)
    one.round()

    leader = leader_of(store, "beat")

    assert leader is not None
    assert (leader.name, leader.label, leader.term, leader.left) == ("beat", "here", one.term, TTL)
    assert leader.since == pytest.approx(elected_at)
    assert leader.last_act == "polled the moon"
    assert leader.last_act_at == pytest.approx(acted_at, abs=0.001)


def test_the_last_act_of_a_beat_is_the_entry_that_it_claimed_last(one: Candidate, store: FlakyStore) -> None:
    one.round()
    assert one.lease
    store.record(one.lease, f"{RUN}early", f"100.5 {one.term}")
    store.record(one.lease, f"{RUN}late", f"200.5 {one.term}")
    store.record(one.lease, f"{RUN}of another term", "300.5 1")
    store.record(one.lease, f"{RUN}new in the schedule", "400.5 0")

    leader = leader_of(store, "beat")

    assert leader is not None
    assert (leader.last_act, leader.last_act_at) == ("late", 200.5)


def test_what_holds_a_name_and_is_no_leader_of_ours_is_not_shown_as_one(store: FlakyStore) -> None:
    store.acquire("leader:beat", Owner.new("x"), TTL, heed_cooldown=False)
    store._guards["leader:beat"].token = None  # type: ignore[assignment]

    assert leader_of(store, "beat") is None


def test_one_that_is_unable_after_a_long_term_lets_another_be_faster(one: Candidate, clock: FakeClock) -> None:
    one.round()
    rounds(one, clock, 3 * TTL)

    one.step_down("unable")
    one.round()

    assert 0 < one.round() <= TTL / 10
    assert not one.leads


def test_one_that_cannot_say_whether_its_work_goes_on_does_not_lead(
    store: FlakyStore, clock: FakeClock, seen: Seen
) -> None:
    """14. Unsure means no."""

    def fail() -> bool:
        raise OSError("no database")

    broken = candidate(store, clock, seen)
    broken.round()
    broken._healthy = fail

    for _ in range(5):
        broken.round()

    assert not broken.leads
    assert [event.why for event in seen.of(LeaderResigned)] == ["stuck"]  # type: ignore[union-attr]
    assert {event.error for event in seen.of(ComponentFailed)} == {"OSError: no database"}  # type: ignore[union-attr]
    assert len(seen.of(ComponentFailed)) <= 2


def test_what_a_stalled_store_granted_late_is_not_lost(one: Candidate, two: Candidate, store: FlakyStore) -> None:
    """16. A store that was stalled carries out what nobody waits for any more: the same owner asks again."""
    acquire = store.acquire

    def too_late(*args: object, **kwargs: object) -> object:
        acquire(*args, **kwargs)  # type: ignore[arg-type]
        raise StoreError("no answer in time")

    store.acquire = too_late  # type: ignore[method-assign,assignment]
    one.round()
    store.acquire = acquire  # type: ignore[method-assign]
    two.round()
    one.round()

    assert one.leads
    assert not two.leads


def test_one_that_waits_while_its_lost_term_is_not_wound_up_does_not_spin(one: Candidate, clock: FakeClock) -> None:
    """A worker of greenlets would never come to wind it up."""
    import time as real

    one.round()
    clock.advance(TTL)

    began = real.monotonic()
    assert not one.wait(0.05)

    assert real.monotonic() - began >= 0.04


def test_a_record_that_somebody_else_wrote_hides_no_leader(one: Candidate, store: FlakyStore) -> None:
    one.round()
    assert one.lease
    store.record(one.lease, "act", "gibberish")

    leader = leader_of(store, "beat")

    assert leader is not None
    assert leader.last_act_at is None
