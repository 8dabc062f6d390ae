"""The scheduler around another scheduler, tick by tick."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler

from celery_coord.app import coordination
from celery_coord.beat import LeaderScheduler
from celery_coord.errors import StoreError
from celery_coord.lease import Held, Owner
from celery_coord.testing import FakeClock, use_memory

PATIENCE = 20.0


class Inner(Scheduler):  # type: ignore[misc]
    """Remembers what it was asked."""

    made: list[Inner] = []
    refusal: Exception | None = None
    trouble: Exception | None = None
    lock_key = "a lock of its own"
    producer = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if Inner.refusal:
            raise Inner.refusal
        super().__init__(*args, **kwargs)
        self.ticks, self.closed, self.sent = 0, 0, []
        self._dirty = {"nightly"}
        Inner.made.append(self)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        self.ticks += 1
        if Inner.trouble:
            raise Inner.trouble
        return 300.0

    def send_task(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.sent.append(name)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def app(clock: FakeClock) -> Celery:
    app = Celery("beats", broker="memory://", set_as_current=False)
    app.conf.coord_beat_scheduler = "test_beat:Inner"
    use_memory(app, clock)
    Inner.made.clear()
    Inner.refusal = Inner.trouble = None
    return app


@pytest.fixture
def beat(app: Celery) -> Iterator[LeaderScheduler]:
    scheduler = LeaderScheduler(app=app)
    yield scheduler
    scheduler.close()


def until(condition: Callable[[], object], beat: LeaderScheduler) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        beat.tick()
        if condition():
            return
    pytest.fail("it never came true")


def another_leads(app: Celery) -> Owner:
    other = Owner.new("beat")
    coordination(app).store.acquire("leader:beat", other, 10, heed_cooldown=False, label="elsewhere")
    return other


def test_a_follower_loads_nothing_and_looks_again_soon(app: Celery, beat: LeaderScheduler) -> None:
    another_leads(app)

    until(lambda: isinstance(beat._candidate.met, Held), beat)  # type: ignore[union-attr]

    assert Inner.made == []
    assert beat.tick() <= 0.1
    assert beat.schedule == {}
    assert not beat.should_sync()


def test_a_leader_runs_the_inner_scheduler_and_never_sleeps_for_long(beat: LeaderScheduler) -> None:
    until(lambda: Inner.made, beat)

    assert beat.tick() <= 1
    assert Inner.made[0].ticks > 0
    assert len(Inner.made) == 1


def test_the_banner_begins_nothing(app: Celery) -> None:
    lazy = LeaderScheduler(app=app, lazy=True)

    lazy.tick()

    assert "test_beat:Inner" in lazy.info
    assert Inner.made == []
    assert not coordination(app).store.look("leader:beat")


def nightly(inner: Inner) -> ScheduleEntry:
    return inner.Entry("nightly", "tidy", schedule=1, app=inner.app)


def test_an_entry_that_comes_due_as_the_leadership_ends_is_left_to_the_next_leader(
    beat: LeaderScheduler, clock: FakeClock
) -> None:
    """14. Two processes never both act inside their trust windows; unsure means no."""
    until(lambda: Inner.made, beat)
    [inner] = Inner.made
    inner.schedule["nightly"] = nightly(inner)
    inner.apply_async(nightly(inner))
    clock.advance(9.6)  # past the trust window: the renewal did not come

    inner.apply_async(nightly(inner))

    assert inner.sent == ["tidy"]


def test_a_leader_whose_scheduler_cannot_be_made_lets_another_and_says_why(
    app: Celery, beat: LeaderScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    """A beat that cannot take over says why, and neither dies nor leads."""
    Inner.refusal = OSError("no database")

    until(lambda: "no database" in caplog.text, beat)

    until(lambda: not coordination(app).store.look("leader:beat"), beat)
    assert "beat: cannot act as the leader" in caplog.text
    assert beat.schedule == {}


def test_a_leader_whose_scheduler_raises_lets_another_and_says_why(
    app: Celery, beat: LeaderScheduler, caplog: pytest.LogCaptureFixture
) -> None:
    until(lambda: Inner.made, beat)
    Inner.trouble = OSError("the database went away")

    until(lambda: not coordination(app).store.look("leader:beat"), beat)

    assert "the database went away" in caplog.text
    assert Inner.made[0].closed == 1


def test_a_leader_that_is_asked_to_step_down_closes_the_inner_scheduler_first(
    app: Celery, beat: LeaderScheduler, clock: FakeClock
) -> None:
    until(lambda: Inner.made, beat)
    candidate = beat._candidate
    assert candidate
    candidate.retiring = "asked"

    beat.tick()

    assert Inner.made[0].closed == 1
    assert Inner.made[0]._dirty, "it still leads: what it has to write is its to write"
    assert not candidate.leads


def test_a_signal_that_strikes_a_step_of_the_loop_closes_nothing_under_it(app: Celery, beat: LeaderScheduler) -> None:
    """16. The handler stands on the step's own queries: to close would wait for them. It is called again after that."""
    until(lambda: Inner.made, beat)
    [inner] = Inner.made
    closed_in_the_step: list[int] = []

    def strike(*args: Any, **kwargs: Any) -> float:
        beat.close()
        closed_in_the_step.append(inner.closed)
        raise SystemExit

    inner.tick = strike
    with pytest.raises(SystemExit):
        beat.tick()
    beat.close()

    assert closed_in_the_step == [0]
    assert inner.closed == 1
    assert not coordination(app).store.look("leader:beat")


def test_a_leader_makes_its_scheduler_only_when_it_knows_what_was_sent(
    app: Celery, beat: LeaderScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """15. A scheduler that is made writes down what it makes up; the next time that would look like what it knows."""
    store = coordination(app).store

    def fail(key: str) -> dict[str, str]:
        raise StoreError("no answer")

    monkeypatch.setattr(store, "records", fail)
    until(lambda: beat._candidate and beat._candidate._short_terms, beat)

    assert Inner.made == []


def test_a_closed_scheduler_leaves_nothing_behind(beat: LeaderScheduler) -> None:
    """There is a new one for each term: none may stay until the process ends, or write as it does."""
    until(lambda: Inner.made, beat)
    [inner] = Inner.made
    cancelled: list[int] = []
    released: list[int] = []
    inner._finalize = SimpleNamespace(cancel=lambda: cancelled.append(1))
    vars(inner)["connection"] = SimpleNamespace(release=lambda: released.append(1))

    beat.close()

    assert (cancelled, released) == ([1], [1])


def test_a_beat_without_a_store_to_share_says_so(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    LeaderScheduler(app=app)

    assert "memory:// serves one process: each beat leads" in caplog.text


def test_redbeats_own_lock_is_off(beat: LeaderScheduler) -> None:
    """The election stands for it: the wrapper shows RedBeat no key, and the inner scheduler keeps none."""
    until(lambda: Inner.made, beat)

    assert Inner.made[0].lock_key is None
    assert beat.lock_key is None


def test_a_beat_whose_worker_is_gone_ends(beat: LeaderScheduler) -> None:
    """An embedded beat does not outlive its worker, also where that was killed."""
    beat.ends_with(os.getpid())

    with pytest.raises(SystemExit):
        beat.tick()


def test_a_leader_whose_clock_is_set_back_asks_anew_what_is_due(
    beat: LeaderScheduler, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    until(lambda: Inner.made, beat)
    beat.tick()
    Inner.made[0]._heap = []

    clock.step_back(3600)
    beat.tick()

    assert Inner.made[0]._heap is None
    assert "the clock was set back by 3600 s" in caplog.text


def test_a_deposed_leader_closes_the_inner_scheduler(app: Celery, beat: LeaderScheduler, clock: FakeClock) -> None:
    until(lambda: Inner.made, beat)
    store = coordination(app).store
    store._guards["leader:beat"].held_until = 0.0  # type: ignore[attr-defined]
    another_leads(app)

    clock.advance(9.6)
    until(lambda: Inner.made[0].closed, beat)

    assert len(Inner.made) == 1
    assert not Inner.made[0]._dirty, "what it has not written down is another's to write"


def test_a_beat_that_was_asked_to_end_ends_though_the_exception_that_said_so_was_lost(
    app: Celery, beat: LeaderScheduler
) -> None:
    until(lambda: Inner.made, beat)

    beat.close()
    beat.close()

    assert Inner.made[0].closed == 1
    assert not coordination(app).store.look("leader:beat")
    with pytest.raises(SystemExit):
        beat.tick()


@pytest.mark.parametrize(
    "name", ["nowhere:Scheduler", "celery.beat:Nothing", "json:dumps", "celery_coord.beat:LeaderScheduler"]
)
def test_an_inner_scheduler_that_cannot_be_is_refused_with_what_to_write(app: Celery, name: str) -> None:
    app.conf.coord_beat_scheduler = name
    use_memory(app)

    with pytest.raises(SystemExit, match="write coord_beat_scheduler = 'celery.beat:PersistentScheduler'"):
        LeaderScheduler(app=app, lazy=True)
