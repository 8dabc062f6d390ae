"""Each due instant is claimed before it is sent: entry by entry, on a clock that is moved by hand."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import BaseSchedule, crontab, schedstate, solar
from doubles import FlakyStore, Seen

from celery_coord.claims import Claims, NotClaimed
from celery_coord.debts import Debt, Debts
from celery_coord.errors import StoreError
from celery_coord.events import EntryFailed, EntrySkipped
from celery_coord.last_runs import LastRuns
from celery_coord.leader import RUN
from celery_coord.lease import Lease, Owner
from celery_coord.testing import FakeClock
from celery_coord.undisturbed import Undisturbed

KEY = "leader:beat"
#: A minute's beginning.
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC).timestamp()


class Inner(Scheduler):  # type: ignore[misc]
    """Celery's own scheduler, whose messages are kept."""

    producer = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.sent: list[dict[str, Any]] = []
        self.broken = False
        super().__init__(*args, **kwargs)

    def send_task(self, name: str, *args: Any, **options: Any) -> None:
        if self.broken:
            raise ConnectionError("no broker")
        self.sent.append({"task": name, **options})

    @property
    def dues(self) -> list[float]:
        return [message["headers"]["coord_beat"]["due"] for message in self.sent]


class Once(BaseSchedule):  # type: ignore[misc]
    """One fixed time, as a clocked entry has it: it does not look at its last run."""

    def __init__(self, at: float, **kwargs: Any) -> None:
        self.at = datetime.fromtimestamp(at, UTC)
        super().__init__(**kwargs)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        return self.at - self.now()

    def is_due(self, last_run_at: datetime) -> schedstate:
        left = max(0.0, self.remaining_estimate(last_run_at).total_seconds())
        return schedstate(left == 0, left or 300.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON - 30)


class Beats:
    """Beats on one store, on one clock; as many lead at once as the test says."""

    def __init__(self, store: FlakyStore, clock: FakeClock, seen: Seen) -> None:
        self.store, self.clock, self.seen = store, clock, seen
        self.debts = Debts(store)
        self.catch_up = "one"
        self.schedule: dict[str, Any] = {"report": {"task": "report", "schedule": crontab()}}

    def new(self, *, leads: Callable[[], bool] = lambda: True, **entries: Any) -> Inner:
        """A beat that has just been elected: the lease is its own, unless the test says that it only believes so."""
        lease = self.store.acquire(KEY, Owner.new("beat"), 1e9, heed_cooldown=False)
        assert isinstance(lease, Lease)
        app = Celery("beats", broker="memory://", set_as_current=False)
        app.conf.timezone = "UTC"
        app.now = lambda: datetime.fromtimestamp(self.clock.time(), UTC)
        app.conf.beat_schedule = entries or self.schedule
        app.conf.result_expires = None
        found, opened_at = self.store.records(KEY), self.clock.time()

        def held() -> Lease | None:
            return lease if leads() else None

        inner = Inner(app)
        inner.undisturbed = Undisturbed()
        term = {"lease": held, "term": lease.token, "key": KEY, "clock": self.clock}
        inner.runs = LastRuns(found, **term, store=self.store, debts=self.debts, patience=4)
        inner.claims = Claims(
            inner,
            **term,
            runs=inner.runs,
            opened_at=opened_at,
            catch_up=self.catch_up,  # type: ignore[arg-type]
            late_after=11,
            notify=self.seen,
            undisturbed=inner.undisturbed,
        )
        return inner

    def after_a_crash(self, **entries: Any) -> Inner:
        """The leader crashed, and its lease has ended: another is elected."""
        self.store.expire(KEY)
        return self.new(**entries)

    def go(self, inner: Inner, seconds: float = 0.0, *, step: float = 1.0) -> None:
        """Let so much time pass in the loop of a beat."""
        end = self.clock.time() + seconds
        while True:
            for _ in range(100):
                if self.tick(inner) > 0:
                    break
            if self.clock.time() >= end:
                return
            self.clock.advance(min(step, end - self.clock.time()))

    def tick(self, inner: Inner) -> float:
        try:
            return float(inner.tick())
        except NotClaimed:
            inner.claims.look_again()
            return 0.1


@pytest.fixture
def beats(store: FlakyStore, clock: FakeClock, seen: Seen) -> Beats:
    return Beats(store, clock, seen)


def minutes(*numbers: float) -> list[float]:
    return [NOON + 60 * number for number in numbers]


def test_each_instant_is_sent_once_with_its_time_and_its_term_in_the_headers(beats: Beats) -> None:
    """7. The fencing token of the term is in the headers of what beat sends."""
    one = beats.new()

    beats.go(one, 125)

    assert one.dues == minutes(0, 1)
    [term] = {message["headers"]["coord_beat"]["term"] for message in one.sent}
    assert {message["headers"]["coord_beat"]["entry"] for message in one.sent} == {"report"}
    assert {tuple(message["headers"]["coord_lease"]) for message in one.sent} == {(KEY, term)}


def test_a_sent_entry_costs_one_round_trip(beats: Beats, store: FlakyStore) -> None:
    one = beats.new()
    beats.go(one, 29)
    asked = len(store.asked)

    beats.go(one, 61)

    assert len(one.sent) == 2
    assert store.asked[asked:] == ["record", "record"]


def test_two_beats_that_both_believe_they_lead_send_an_instant_once(
    beats: Beats, store: FlakyStore, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15. Each due instant is sent at most once even while two beats believe that they lead."""
    one, two = beats.new(), beats.after_a_crash()
    monkeypatch.setattr(
        store, "_is_holder", lambda lease: True
    )  # the store itself is deceived: the claim alone decides

    for _ in range(200):
        beats.go(one)
        beats.go(two)
        beats.clock.advance(1)

    assert sorted(one.dues + two.dues) == minutes(0, 1, 2)
    assert {event.why for event in seen.of(EntrySkipped)} == {"claimed"}  # type: ignore[union-attr]


def test_a_beat_that_was_deposed_and_does_not_know_sends_nothing(beats: Beats, seen: Seen) -> None:
    """15. The claim is only for the one who holds the lease in the store."""
    one = beats.new()
    beats.go(one)
    two = beats.after_a_crash()

    beats.go(one, 100)

    assert one.sent == []
    assert {event.why for event in seen.of(EntrySkipped)} == {"lost"}  # type: ignore[union-attr]
    beats.go(two)
    assert two.dues == minutes(0)


def test_a_beat_that_knows_that_it_leads_no_more_asks_nobody(beats: Beats, store: FlakyStore) -> None:
    leads = [True]
    one = beats.new(leads=lambda: leads[0])
    beats.go(one)
    leads[0] = False
    asked = len(store.asked)

    beats.go(one, 60)

    assert one.sent == []
    assert len(store.asked) == asked


def test_an_instant_that_came_due_while_nobody_led_is_sent_late(beats: Beats) -> None:
    """15. While one beat lives, at least once: late, not never."""
    one = beats.new()
    beats.go(one, 35)
    beats.clock.advance(70)

    two = beats.after_a_crash()
    beats.go(two)

    assert one.dues + two.dues == minutes(0, 1)


@pytest.mark.parametrize(("catch_up", "dues"), [("one", [1]), ("all", [1, 2, 3, 4, 5]), ("none", [])])
def test_what_becomes_of_many_missed_instants_is_a_choice(beats: Beats, catch_up: str, dues: list[int]) -> None:
    beats.catch_up = catch_up
    one = beats.new()
    beats.go(one, 35)
    beats.clock.advance(5 * 60 + 20)  # until twenty-five seconds past the fifth

    two = beats.after_a_crash()
    beats.go(two)

    assert two.dues == minutes(*dues)
    beats.go(two, 60)
    assert two.dues == minutes(*dues, 6), "and it goes on as usual"


def test_what_a_take_over_makes_late_is_not_missed(beats: Beats) -> None:
    """`none` passes over what is late by more than the ttl and a second: what a usual take-over takes is not."""
    beats.catch_up = "none"
    one = beats.new()
    beats.go(one, 35)
    beats.clock.advance(55 + 9)

    two = beats.after_a_crash()
    beats.go(two)

    assert two.dues == minutes(1)


@pytest.mark.parametrize("every", [10, timedelta(seconds=10)])
def test_an_interval_goes_on_from_where_the_last_leader_was(beats: Beats, every: object) -> None:
    entry = {"task": "t", "schedule": every}
    one = beats.new(often=entry)
    beats.go(one, 35)
    last = beats.clock.time()
    beats.clock.advance(3)

    two = beats.after_a_crash(often=entry)
    beats.go(two, 1)

    assert len(one.sent) == 3
    assert two.sent == []
    beats.go(two, 5)
    [due] = two.dues
    assert due == pytest.approx(one.dues[-1] + 10, abs=1.1)
    assert due > last


def test_a_long_interval_does_not_begin_anew_with_each_leader(beats: Beats) -> None:
    """15. An entry that no leader lived long enough to send is sent all the same."""
    entry = {"task": "t", "schedule": 3600}
    sent = []
    for number in range(7):
        beat = beats.after_a_crash(daily=entry) if number else beats.new(daily=entry)
        beats.go(beat, 600, step=60)
        sent += beat.dues

    assert sent == [NOON - 30 + 3600]


def test_an_entry_with_one_fixed_time_is_sent_once_by_all_leaders(beats: Beats) -> None:
    """15. A clocked entry does not look at its last run; the next leader does."""
    entry = {"task": "t", "schedule": Once(NOON)}
    one = beats.new(launch=entry)
    beats.go(one, 35)

    two = beats.after_a_crash(launch={"task": "t", "schedule": Once(NOON)})
    beats.go(two, 35)

    assert one.dues == minutes(0)
    assert two.sent == []
    three = beats.after_a_crash(launch={"task": "t", "schedule": Once(NOON + 600)})
    beats.go(three, 600)
    assert three.dues == minutes(10), "another time is another instant"


def test_an_entry_that_expires_is_sent_late_with_its_time_to_live(beats: Beats) -> None:
    beats.schedule["report"]["options"] = {"expires": 30, "headers": {"mine": 1}}
    one = beats.new()
    beats.go(one)
    beats.clock.advance(50)

    two = beats.after_a_crash()
    beats.go(two)

    assert [message["expires"] for message in two.sent] == [30]
    assert two.sent[0]["headers"]["mine"] == 1
    assert beats.schedule["report"]["options"]["headers"] == {"mine": 1}, "what the user wrote is left as it is"


def test_sunrise_is_sent_once_whoever_leads(beats: Beats) -> None:
    one = beats.new(sun={"task": "t", "schedule": solar("sunrise", -37.81, 144.96)})
    beats.go(one, 86400, step=600)

    two = beats.after_a_crash(sun={"task": "t", "schedule": solar("sunrise", -37.81, 144.96)})
    beats.go(two, 86400, step=600)

    assert len(one.sent) == 1
    assert len(two.sent) == 1
    assert two.dues[0] - one.dues[0] == pytest.approx(86400, abs=300)


def test_a_deploy_that_changes_the_schedule_sends_nothing_twice_and_begins_what_is_new(beats: Beats) -> None:
    every_minute = {"task": "t", "schedule": crontab()}
    old = beats.new(kept=every_minute, changed={"task": "t", "schedule": 600}, gone=every_minute)
    beats.go(old, 35)

    new = beats.after_a_crash(
        kept=every_minute, changed={"task": "t", "schedule": 20}, added={"task": "t", "schedule": 30}
    )
    beats.go(new, 33)

    names = [message["headers"]["coord_beat"]["entry"] for message in new.sent]
    assert sorted(set(names)) == ["added", "changed"]
    beats.go(new, 30)
    assert new.dues.count(NOON) == 0
    assert new.dues.count(NOON + 60) == 1


def test_a_clock_that_is_set_back_repeats_no_instant_and_holds_no_interval_up(beats: Beats, clock: FakeClock) -> None:
    """15. Each due instant at most once, also when the clock shows it again; an interval needs no time of day."""
    entries = {"minutely": {"task": "m", "schedule": crontab()}, "often": {"task": "o", "schedule": 10}}
    one = beats.new(**entries)
    beats.go(one, 95)
    clock.step_back(600)

    two = beats.after_a_crash(**entries)
    beats.go(two, 30)

    assert [message["task"] for message in two.sent] == ["o"] * 3
    beats.go(two, 660)
    sent = [due for message, due in zip(two.sent, two.dues, strict=True) if message["task"] == "m"]
    assert sent == minutes(2)


def test_a_clock_that_is_set_forward_sends_what_came_due(beats: Beats) -> None:
    one = beats.new()
    beats.go(one, 35)

    beats.clock.advance(3600)
    beats.go(one)

    assert one.dues == minutes(0, 1)


@pytest.mark.parametrize(
    ("zone", "last", "dues"),
    [
        # The clocks go back at 03:00 to 02:00, so 02:30 comes twice; Celery sends it once.
        ("Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), 2),
        ("Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC), 2),
        ("Asia/Kathmandu", datetime(2026, 6, 1, 12, tzinfo=UTC), 2),
    ],
)
def test_take_overs_on_a_day_whose_clocks_change_repeat_nothing(
    beats: Beats, zone: str, last: datetime, dues: int
) -> None:
    """15. Time zones and daylight saving: with a new leader every half an hour as with one for two days."""

    def run(seconds_a_leader: int) -> list[float]:
        clock = FakeClock(last.timestamp())
        store = FlakyStore(clock)
        many = Beats(store, clock, Seen())
        sent: list[float] = []
        for _ in range(2 * 86400 // seconds_a_leader):
            store.acquire(KEY, Owner.new("nobody"), 1, heed_cooldown=False)
            inner = many.after_a_crash(nightly={"task": "t", "schedule": crontab(minute="30", hour="2")})
            inner.app.conf.timezone = zone
            inner.app.now = lambda zone=inner.app.timezone: datetime.fromtimestamp(clock.time(), zone)
            many.go(inner, seconds_a_leader, step=300)
            sent += inner.dues
        return sent

    assert run(1800) == run(2 * 86400)
    assert len(set(run(1800))) == len(run(1800)) >= dues - 1


def test_what_the_broker_did_not_take_is_sent_later_and_nothing_else_is_held_up(beats: Beats, seen: Seen) -> None:
    """15. Late, not never: an instant whose message could not be sent is nobody's again."""
    one = beats.new()
    one.broken = True
    beats.go(one, 40)
    failed = seen.of(EntryFailed)

    one.broken = False
    beats.go(one, 31)

    assert 2 <= len(failed) <= 8
    assert one.dues == minutes(0)
    beats.go(one, 60)
    assert one.dues == minutes(0, 1)


def test_a_scheduler_that_cannot_note_a_run_has_not_run_it(beats: Beats) -> None:
    """15. Late, not never: the inner scheduler's own store may fail between the claim and the message."""
    one = beats.new()
    beats.go(one)
    reserve = one.claims._reserve

    def fail(entry: Any) -> Any:
        raise OSError("no database")

    one.claims._reserve = fail
    with pytest.raises(OSError, match="no database"):
        beats.go(one, 31)

    one.claims._reserve = reserve
    beats.go(one)
    assert one.dues == minutes(0)


def test_what_a_leader_could_not_send_the_next_one_sends(beats: Beats) -> None:
    one = beats.new()
    one.broken = True
    beats.go(one, 31)

    two = beats.after_a_crash()
    beats.go(two)

    assert one.sent == []
    assert two.dues == minutes(0)


def test_a_claim_is_taken_back_also_by_one_who_leads_no_more(beats: Beats, store: FlakyStore) -> None:
    """15. A publish that fails may take its time: another leads by then, and the instant is that one's to send."""
    one = beats.new()
    beats.go(one)

    class Slow(ConnectionError):
        def __init__(self) -> None:
            super().__init__("no broker, after a while")
            store.expire(KEY)
            self.successor = beats.after_a_crash()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise Slow

    one.send_task = fail
    beats.go(one, 31)
    two = beats.after_a_crash()
    beats.go(two)

    assert two.dues == minutes(0)


def test_a_store_that_does_not_answer_delays_an_instant_and_repeats_none(
    beats: Beats, store: FlakyStore, seen: Seen
) -> None:
    one = beats.new()
    beats.go(one)
    store.away = True
    beats.go(one, 35)

    store.away = False
    beats.go(one, 1)

    assert one.dues == minutes(0)
    assert {event.why for event in seen.of(EntrySkipped)} == {"store"}  # type: ignore[union-attr]


def test_a_claim_whose_answer_was_lost_is_known_as_ones_own(beats: Beats, store: FlakyStore) -> None:
    """15. Late, not never: the store has the claim, and the beat never heard of it."""
    one = beats.new()
    beats.go(one)
    record = store.record

    def lose_the_answer(*args: Any, **kwargs: Any) -> Any:
        record(*args, **kwargs)
        store.away = True
        return record(*args, **kwargs)

    store.record = lose_the_answer  # type: ignore[method-assign]
    beats.go(one, 31)
    assert one.sent == []

    store.record = record  # type: ignore[method-assign]
    store.away = False
    beats.go(one, 1)

    assert one.dues == minutes(0)


def test_what_left_the_schedule_long_ago_is_forgotten_and_what_left_it_lately_is_not(
    beats: Beats, store: FlakyStore
) -> None:
    one = beats.new(old={"task": "t", "schedule": crontab()})
    beats.go(one, 35)
    beats.clock.advance(8 * 86400)
    two = beats.after_a_crash(lately={"task": "t", "schedule": crontab()})
    beats.go(two, 61)

    three = beats.after_a_crash(new={"task": "t", "schedule": crontab()})
    beats.go(three)

    assert {name.removeprefix(RUN) for name in store.records(KEY)} == {"lately", "new"}


def test_an_entry_whose_schedule_knows_no_next_instant_is_sent_all_the_same(beats: Beats) -> None:
    class Whim(BaseSchedule):  # type: ignore[misc]
        def is_due(self, last_run_at: datetime) -> schedstate:
            return schedstate(self.now() - last_run_at >= timedelta(seconds=5), 1.0)

    one = beats.new(whim={"task": "t", "schedule": Whim()})

    beats.go(one, 11)

    assert len(one.sent) == 2
    assert one.dues == [None, None]


def test_an_entry_object_is_not_made_anew(beats: Beats) -> None:
    """What is sent is marked on a copy; an entry of another kind need not be made as Celery makes its own."""

    class Odd(ScheduleEntry):  # type: ignore[misc]
        def __init__(self, *args: Any, odd: int = 0, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.odd = odd

    one = beats.new()
    one.Entry = Odd
    one.schedule["report"] = Odd("report", "report", schedule=crontab(app=one.app), app=one.app, odd=1)

    beats.go(one, 35)

    assert len(one.sent) == 1


def test_what_another_takes_back_after_a_take_over_is_sent_by_the_one_who_leads(
    beats: Beats, store: FlakyStore
) -> None:
    """15. A publish may fail long after its beat was deposed; the next one has adopted the claim by then."""
    one = beats.new()
    beats.go(one)
    two: list[Inner] = []

    def fail(*args: Any, **kwargs: Any) -> None:
        two.append(beats.after_a_crash())
        beats.go(two[0])
        raise ConnectionError("no broker, after a while")

    one.send_task = fail
    beats.go(one, 31)
    assert two[0].dues == []

    two[0].claims.refresh()
    beats.go(two[0])

    assert two[0].dues == minutes(0)
    beats.go(two[0], 60)
    assert two[0].dues == minutes(0, 1)


def test_a_beat_that_was_paused_after_its_claim_sends_nothing_when_it_wakes(
    beats: Beats, store: FlakyStore, seen: Seen
) -> None:
    """14, 15. It takes its claim back, and the one who leads then sends the instant."""
    leads = [True]
    one = beats.new(leads=lambda: leads[0])
    beats.go(one)
    record = store.record

    def then_pause(*args: Any, **kwargs: Any) -> Any:
        answer = record(*args, **kwargs)
        leads[0] = False
        return answer

    store.record = then_pause  # type: ignore[method-assign]
    beats.go(one, 31)
    store.record = record  # type: ignore[method-assign]
    two = beats.after_a_crash()
    beats.go(two)

    assert one.sent == []
    assert two.dues == minutes(0)
    assert {event.why for event in seen.of(EntrySkipped)} == {"lost"}  # type: ignore[union-attr]


def test_a_scheduler_writes_down_what_it_knows_only_while_it_leads(beats: Beats) -> None:
    """15. A deposed leader's last words would stand over the next one's."""
    leads, written = [True], [0]
    one = beats.new(leads=lambda: leads[0])
    one.claims._sync = lambda: written.__setitem__(0, written[0] + 1)
    one.sync()
    leads[0] = False

    one.sync()
    one.close()

    assert written == [1]


@pytest.mark.parametrize("strikes", ["claiming", "publishing"])
def test_a_request_to_end_waits_until_a_claimed_instant_is_sent(beats: Beats, store: FlakyStore, strikes: str) -> None:
    """15. Celery ends a beat by an exception from a signal's handler, wherever it strikes."""
    ended: list[int] = []

    def end(number: int, frame: object) -> None:
        ended.append(len(one.sent))
        raise SystemExit

    before = signal.signal(signal.SIGTERM, end)
    try:
        one = beats.new()
        one.undisturbed.install()
        beats.go(one)
        record, send = store.record, one.send_task

        def then_strike(*args: Any, **kwargs: Any) -> Any:
            answer = record(*args, **kwargs)
            signal.raise_signal(signal.SIGTERM)
            return answer

        def strike_then_send(*args: Any, **kwargs: Any) -> None:
            signal.raise_signal(signal.SIGTERM)
            send(*args, **kwargs)

        if strikes == "claiming":
            store.record = then_strike  # type: ignore[method-assign]
        else:
            one.send_task = strike_then_send
        with pytest.raises(SystemExit):
            beats.go(one, 31)
    finally:
        one.undisturbed.remove()
        assert signal.signal(signal.SIGTERM, before) is end

    assert one.dues == minutes(0)
    assert ended == [1]


def test_catching_up_goes_forward_on_a_day_whose_clocks_change(clock: FakeClock) -> None:
    """15. At most once: Celery before 5.7 errs by an hour on such a day; that must not move an entry back."""
    clock = FakeClock(datetime(2026, 3, 29, 0, 40, tzinfo=UTC).timestamp())
    store = FlakyStore(clock)
    beats = Beats(store, clock, Seen())
    beats.catch_up = "all"
    entry = {"task": "t", "schedule": crontab(minute="*/15")}

    def led(inner: Inner) -> Inner:
        inner.app.conf.timezone = "Europe/Berlin"
        zone = inner.app.timezone
        inner.app.now = lambda: datetime.fromtimestamp(clock.time(), zone)
        return inner

    one = led(beats.new(often=entry))
    beats.go(one, 600, step=60)
    clock.advance(3600)
    two = led(beats.after_a_crash(often=entry))
    beats.go(two, 1800, step=60)

    assert 1 <= len(one.sent) + len(two.sent) <= 8
    records = [float(value.split()[0]) for value in store.records(KEY).values()]
    assert records[0] > clock.time() - 1000


def test_an_entry_that_cannot_be_sent_does_not_stand_before_the_others(beats: Beats) -> None:
    """15. Late, not never: Celery before 5.7 looks no further than the first entry that seems to be due."""
    one = beats.new(
        bad={"task": "bad", "schedule": crontab()},
        good={"task": "good", "schedule": crontab()},
        once={"task": "once", "schedule": Once(NOON)},
    )
    send = one.send_task

    def fail(name: str, *args: Any, **options: Any) -> None:
        if name == "bad":
            raise ConnectionError("this one is too large")
        send(name, *args, **options)

    one.send_task = fail
    beats.go(one, 31)
    one.populate_heap()
    assert all(event.time > beats.clock.time() for event in one._heap), "nothing that is not to be sent seems due"
    beats.go(one, 5 * 60 - 31)

    sent = [message["task"] for message in one.sent]
    assert sent.count("good") == 5
    assert sent.count("once") == 1


def test_what_cannot_be_written_down_is_sent_once_all_the_same(beats: Beats, caplog: pytest.LogCaptureFixture) -> None:
    """15. Celery syncs at the end of a publish; a full disk makes no failure of a message that is sent."""
    one = beats.new()

    def fail() -> None:
        raise OSError("no space left")

    one.claims._sync = fail
    one.sync_every_tasks = 1
    beats.go(one, 95)

    assert one.dues == minutes(0, 1)
    assert "no space left" in caplog.text


class OfItsOwn(Inner):
    """A user's scheduler with a loop of its own, which asks its entries and not itself."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        for entry in list(self.schedule.values()):
            if entry.is_due().is_due:
                self.reserve(entry)
                self.apply_entry(entry, producer=None)
        return 1.0


def test_a_loop_of_its_own_that_is_behind_learns_what_the_store_knows(
    beats: Beats, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15. At most once, whatever a scheduler remembers."""
    monkeypatch.setattr("test_claims.Inner", OfItsOwn)
    one = beats.new()
    beats.go(one, 35)

    two = beats.after_a_crash()
    two.schedule["report"].last_run_at = datetime.fromtimestamp(NOON - 300, UTC)  # its own file is old
    beats.go(two, 20)

    assert one.dues == minutes(0)
    assert two.sent == []
    beats.go(two, 40)
    assert two.dues == minutes(1)


def test_a_clock_that_is_set_back_repeats_no_rounded_interval(beats: Beats, clock: FakeClock) -> None:
    entry = {"task": "t", "schedule": 60, "relative": True}
    one = beats.new(rounded=entry)
    beats.go(one, 95)
    clock.step_back(120)

    two = beats.after_a_crash(rounded=entry)
    beats.go(two, 110)

    assert len(set(one.dues + two.dues)) == len(one.dues + two.dues)


def test_a_clock_that_was_wrong_by_more_than_a_day_holds_nothing_up(beats: Beats, clock: FakeClock) -> None:
    clock.advance(365 * 86400)
    one = beats.new()
    beats.go(one, 65)
    assert one.sent
    clock.step_back(365 * 86400)

    two = beats.after_a_crash()
    beats.go(two, 120)

    assert len(two.sent) == 2


def test_an_interval_that_was_passed_over_once_runs_again(beats: Beats) -> None:
    """`none`: what is passed over is written down, or else each leader would begin to pass over anew."""
    beats.catch_up = "none"
    hourly = {"task": "t", "schedule": 3600}
    beats.new(hourly=hourly).tick()
    beats.clock.advance(5000)

    sent = []
    for _ in range(8):  # leaders of ten minutes
        beat = beats.after_a_crash(hourly=hourly)
        beats.go(beat, 600, step=60)
        sent += beat.dues

    assert len(sent) == 1


def test_a_claim_of_ones_own_that_nobody_heard_of_is_not_taken_for_anothers(beats: Beats, store: FlakyStore) -> None:
    one = beats.new()
    beats.go(one, 29)
    record = store.record

    def lose_the_answer(*args: Any, **kwargs: Any) -> Any:
        record(*args, **kwargs)
        raise StoreError("no answer")

    store.record = lose_the_answer  # type: ignore[method-assign]
    beats.go(one, 2)
    store.record = record  # type: ignore[method-assign]

    one.claims.refresh()
    beats.go(one, 1)

    assert one.dues == minutes(0)


def test_a_claim_that_the_store_did_not_hear_taken_back_is_sent_all_the_same(beats: Beats, store: FlakyStore) -> None:
    """15. Late, not never: broker and store away at once."""
    one = beats.new()
    beats.go(one)
    send = one.send_task

    def fail(*args: Any, **kwargs: Any) -> None:
        store.away = True
        raise ConnectionError("no broker")

    one.send_task = fail
    beats.go(one, 31)
    store.away, one.send_task = False, send
    beats.debts.settle()
    assert float(store.records(KEY)[f"{RUN}report"].split()[0]) < NOON, "whoever leads next has it to send"
    beats.go(one, 5)

    assert one.dues == minutes(0)


def test_what_keeps_an_entry_from_being_sent_is_said_once(beats: Beats, store: FlakyStore, seen: Seen) -> None:
    one = beats.new()
    beats.go(one)
    store.away = True

    beats.go(one, 300)
    assert len(seen.of(EntrySkipped)) == 1

    store.away = False
    beats.go(one, 1)
    store.away = True
    beats.go(one, 60)
    assert len(seen.of(EntrySkipped)) == 2


class Row:
    """What a row of Django's database is to its entry."""

    def __init__(self, last_run_at: datetime | None) -> None:
        self.last_run_at = last_run_at
        self.total_run_count = 0


class RowEntry(ScheduleEntry):  # type: ignore[misc]
    """An entry whose row shares its last run; one that is to run once is over when the row says that it has run."""

    def __init__(self, *args: Any, row: Row, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model = row

    def is_due(self) -> schedstate:
        return schedstate(False, 300.0) if self.model.total_run_count else super().is_due()

    def __next__(self) -> RowEntry:
        self.model.last_run_at = self.default_now()
        self.model.total_run_count += 1
        return RowEntry(self.name, self.task, schedule=self.schedule, app=self.app, row=self.model)

    next = __next__


def with_a_row(inner: Inner, row: Row) -> Inner:
    inner._dirty = set()
    at = Once(NOON, app=inner.app)
    inner.schedule["launch"] = RowEntry("launch", "t", last_run_at=row.last_run_at, schedule=at, app=inner.app, row=row)
    inner._heap = None
    return inner


def test_what_is_to_run_once_and_was_taken_back_after_a_take_over_is_sent(beats: Beats, store: FlakyStore) -> None:
    """15. Late, not never: a claim that was only adopted is no run yet."""
    created = datetime.fromtimestamp(NOON - 3000, UTC)
    one = with_a_row(beats.new(), Row(created))
    beats.go(one)
    row, two = Row(created), []

    def fail(*args: Any, **kwargs: Any) -> None:
        two.append(with_a_row(beats.after_a_crash(), row))
        beats.go(two[0])
        raise ConnectionError("no broker, after a while")

    one.send_task = fail
    one.schedule.pop("report")
    beats.go(one, 31)
    two[0].claims.refresh()
    beats.go(two[0])

    assert [message["task"] for message in two[0].sent if message["task"] == "t"] == ["t"]


def test_what_is_to_run_once_and_has_is_written_down_as_that(beats: Beats) -> None:
    """15. The leader was killed before it could write it down: the next one does, once nobody can take it back."""
    created = datetime.fromtimestamp(NOON - 3000, UTC)
    one = with_a_row(beats.new(), Row(created))
    beats.go(one, 35)
    row = Row(created)

    beats.clock.advance(61)
    two = with_a_row(beats.after_a_crash(), row)
    beats.go(two)

    assert [message["task"] for message in one.sent].count("t") == 1
    assert "t" not in [message["task"] for message in two.sent]
    assert row.total_run_count == 1
    assert "launch" in two._dirty


def test_an_instant_that_can_be_given_back_no_more_is_owed_and_sent_by_who_leads(
    beats: Beats, store: FlakyStore
) -> None:
    """15. Late, not never: a leader was paused between claim and message, and the next one has moved the entry on."""
    leads, two = [True], []
    one = beats.new(leads=lambda: leads[0])
    beats.go(one)
    record = store.record

    def then_pause(*args: Any, **kwargs: Any) -> Any:
        answer = record(*args, **kwargs)
        store.record = record  # type: ignore[method-assign]
        leads[0] = False
        two.append(beats.after_a_crash())
        beats.go(two[0], 61)
        return answer

    store.record = then_pause  # type: ignore[method-assign]
    beats.go(one, 31)
    assert (one.sent, two[0].dues) == ([], minutes(1))

    for _ in range(3):
        two[0].claims.refresh()
        two[0].claims.pay()

    assert two[0].dues == minutes(1, 0)
    beats.debts.add(Debt("report", one.runs.written_under, f"{NOON:.6f} 1", "", NOON))  # it had not heard of it
    two[0].claims.refresh()
    two[0].claims.pay()
    assert two[0].dues == minutes(1, 0)


def test_an_instant_that_is_owed_is_sent_once_though_two_believe_that_they_lead(
    beats: Beats, store: FlakyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = beats.new()
    beats.go(one, 35)
    two = beats.after_a_crash()
    beats.go(two)
    monkeypatch.setattr(store, "_is_holder", lambda lease: True)
    store.record(one.runs.written_under, f"owed:{NOON - 60:.6f}:report", f"{NOON - 60:.6f}")

    for beat in (one, two):
        beat.claims.refresh()
    for beat in (one, two, one):
        beat.claims.pay()

    assert (one.dues + two.dues).count(NOON - 60) == 1


def test_what_is_owed_and_cannot_be_sent_stays_owed(beats: Beats, store: FlakyStore, seen: Seen) -> None:
    one = beats.new()
    beats.go(one)
    fact = f"owed:{NOON - 60:.6f}:report"
    store.record(one.runs.written_under, fact, f"{NOON - 60:.6f}")
    one.broken = True
    one.claims.refresh()
    one.claims.pay()
    assert len(seen.of(EntryFailed)) == 1

    one.broken = False
    one.claims.refresh()
    one.claims.pay()

    assert one.dues == [NOON - 60]
    beats.clock.advance(8 * 86400)
    one.claims.refresh()
    one.claims._sweep(set())
    assert fact not in store.records(KEY)


def test_a_claim_that_was_granted_unheard_is_given_back_when_its_term_is_over(beats: Beats, store: FlakyStore) -> None:
    """15. Late, not never: the store stalled, and its leader was deposed meanwhile."""
    one = beats.new()
    beats.go(one)
    record = store.record

    def lose_the_answer(*args: Any, **kwargs: Any) -> Any:
        record(*args, **kwargs)
        store.away = True
        raise StoreError("no answer")

    store.record = lose_the_answer  # type: ignore[method-assign]
    beats.go(one, 31)
    store.record = record  # type: ignore[method-assign]
    one.claims.end()
    store.away = False
    beats.debts.settle()

    two = beats.after_a_crash()
    beats.go(two)

    assert two.dues == minutes(0)


def test_what_another_took_back_is_learnt_from_a_refused_claim_as_well(beats: Beats, store: FlakyStore) -> None:
    """15. Late, not never: it was taken back after the new leader had adopted it, and before that looked again."""
    beats.catch_up = "all"
    one = beats.new()
    beats.go(one)
    two: list[Inner] = []

    def fail(*args: Any, **kwargs: Any) -> None:
        beats.clock.advance(2)  # later than the instant: it is not made up
        two.append(beats.after_a_crash())
        beats.go(two[0])
        raise ConnectionError("no broker, after a while")

    one.send_task = fail
    beats.go(one, 31)
    beats.go(two[0], 61)

    assert two[0].dues == minutes(0, 1)


@pytest.mark.parametrize("older", ["an earlier claim", "nothing"])
def test_a_leader_does_not_repeat_what_its_store_has_forgotten(beats: Beats, store: FlakyStore, older: str) -> None:
    """15. At most once: after a fail-over that lost writes the leader knows better than the store what it has sent."""
    beats.catch_up = "all"
    leader = beats.new()
    beats.go(leader, 60)
    before = store.records(KEY)[RUN + "report"]
    beats.go(leader, 180)
    sent = list(leader.dues)

    held = store.look(KEY).held
    assert held is not None
    lost = Lease(KEY, held.holder, held.token or 0, 1e9)
    store.record(lost, RUN + "report", before if older == "an earlier claim" else "")
    leader.claims.refresh()
    beats.go(leader, 120)

    assert leader.dues[: len(sent)] == sent
    assert leader.dues == sorted(set(leader.dues))
    assert len(leader.dues) == len(sent) + 2
    assert store.records(KEY)[RUN + "report"].startswith(f"{leader.dues[-1]:.0f}"[:6])
