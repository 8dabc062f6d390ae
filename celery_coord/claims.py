"""Each instant of a schedule is claimed in the store before it is sent.

The election keeps things calm; the claim keeps them right. For each entry of the schedule the store knows when it ran
last (`celery_coord.last_runs`), and a beat may only move that on, from what it knew to what it now sends, while the
store has the lease as its own. So an instant is sent at most once even while two beats
believe that they lead, and a beat that takes over finds what its predecessor sent, whatever the inner scheduler
remembers.

Around an inner scheduler five of its methods are taken over:

* `populate_heap`: what the store knows of the entries is adopted; what it does not know is written down, so that an
  entry with a long interval does not begin anew with each leader.
* `is_due`: the same for the one entry, and what becomes of instants that nobody sent (`coord_beat_catch_up`).
* `reserve`: the claim. It comes before the entry's last run is moved on, so that a refusal changes nothing.
* `sync`: only one who leads writes to what the schedulers share.
* `apply_async`: the headers; and where the publish fails, the claim is taken back and tried again later.

A scheduler with a loop of its own, as RedBeat's, asks neither of the first two; it reserves and sends all the same.

What an entry's instants are is its schedule's to say. Those of an interval count from the entry's last run, so they
move with each take-over; those of all others are fixed.

Not promised: an instant whose beat is killed between its claim and the broker's answer, within a millisecond or so. It
is claimed, so nobody sends it again: at most once goes before at least once there. Nor is anything where the store
forgets. What a beat that lives has claimed and could not send is given back, or owed: see `celery_coord.debts`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from celery.schedules import schedstate
from celery.utils.log import get_logger

from celery_coord.clock import Clock
from celery_coord.debts import owed
from celery_coord.entries import (
    CLOCKS_DIFFER,
    behind,
    counts_from_its_last_run,
    has_run_once,
    instant_after,
    is_kept_elsewhere,
    is_to_be_written,
    keeps_its_own_time,
    last_run,
    marked,
    put_back,
    run_never_happened,
    set_last_run,
)
from celery_coord.errors import StoreError
from celery_coord.events import EntryFailed, EntrySkipped, Event
from celery_coord.last_runs import NO_RUN, LastRuns
from celery_coord.lease import Lease
from celery_coord.parent import HEADER
from celery_coord.policy import CatchUp
from celery_coord.undisturbed import Undisturbed

#: The header of what a beat sends: entry, instant and term.
BEAT_HEADER = "coord_beat"
#: What could not be sent is tried again after so many seconds, then twice that, and so on, up to the second.
_TRY_AGAIN, _TRY_AGAIN_AT_MOST = 1.0, 30.0
#: By how many seconds a clock may be set back so that no instant of it is sent again; more than that was a wrong clock.
_CLOCK_WAS_WRONG = 86400.0
#: A claim that is older than so many seconds is not taken back any more.
_SETTLED_AFTER = 60.0

logger = get_logger(__name__)


class NotClaimed(Exception):
    """An entry is due and must not be sent by this beat, or not now."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be sent for an entry.

    Attributes:
        due: the first instant that is sent, in seconds since the epoch; None where the schedule does not say.
        until: up to when the entry has run, once it is sent.
    """

    due: float | None
    until: float


@dataclass(frozen=True, slots=True)
class _Failure:
    """An entry could not be sent; it is not tried again before this instant of the monotonic clock."""

    not_before: float
    pause: float


class Claims:
    """What one leader sends in one term.

    Args:
        inner: the scheduler that the leader runs.
        lease: asked for the lease of this term; None where it has ended.
        term: the number of this term.
        key: of the election.
        runs: what the store knows of the entries; read before the inner scheduler was begun.
        opened_at: when that was, in seconds since the epoch.
        clock: this process's clock.
        catch_up: what becomes of instants that nobody sent.
        late_after: by how many seconds an instant is late that counts as missed.
        notify: is told of what was not sent.
        undisturbed: what keeps a claim and its message together.
    """

    def __init__(
        self,
        inner: Any,
        *,
        lease: Callable[[], Lease | None],
        term: int,
        key: str,
        runs: LastRuns,
        opened_at: float,
        clock: Clock,
        catch_up: CatchUp,
        late_after: float,
        notify: Callable[[Event], None],
        undisturbed: Undisturbed,
    ) -> None:
        self._inner = inner
        self._lease = lease
        self._term = term
        self._key = key
        self._runs = runs
        self._opened_at = opened_at
        self._clock = clock
        self._catch_up = catch_up
        self._late_after = late_after
        self._notify = notify
        self._undisturbed = undisturbed
        self._plans: dict[str, _Plan] = {}
        self._claimed: dict[str, tuple[str, _Plan]] = {}
        self._failures: dict[str, _Failure] = {}
        self._said: dict[str, str] = {}
        self._take_over()

    def _take_over(self) -> None:
        inner = self._inner
        self._is_due, self._reserve = inner.is_due, inner.reserve
        self._apply_async, self._populate_heap = inner.apply_async, inner.populate_heap
        self._sync, inner.sync = inner.sync, self.sync
        inner.is_due, inner.reserve = self.is_due, self.reserve
        inner.apply_async, inner.populate_heap = self.apply_async, self.populate_heap

    def look_again(self) -> None:
        """Let the scheduler ask each entry anew when it is due."""
        self._inner._heap = None  # noqa: SLF001  Celery's own name for it

    def sync(self) -> None:
        """Let the scheduler write down what it has not yet, while that is its to write, and not the next leader's."""
        if self._lease() is None:
            return
        try:
            self._sync()
        except Exception:  # it may stand at the end of a publish, whose message is sent
            logger.exception("beat: %r could not write down what it knows", self._inner)

    def populate_heap(self, *args: Any, **kwargs: Any) -> Any:
        """Adopt what the store knows, and tell it what it does not, before the scheduler orders its entries."""
        entries = list(self._inner.schedule.values())
        for entry in entries:
            self._adopt(entry)
            self._let_no_last_run_lie_ahead(entry)
            if self._runs.at(entry.name) is None and not is_kept_elsewhere(entry):
                self._runs.write(entry.name, last_run(entry) or self._clock.time(), term=NO_RUN)
        self._sweep({entry.name for entry in entries})
        self._populate_heap(*args, **kwargs)
        self._put_behind()

    def _put_behind(self) -> None:
        """What looks due and is not must not stand before the others: Celery before 5.7 would look no further."""
        now, heap = self._clock.time(), self._inner._heap  # noqa: SLF001  Celery's own name for it
        for number, event in enumerate(heap):
            if event.time <= now and (wait := self._must_wait(event.entry, now)):
                heap[number] = event._replace(time=now + wait)
        heapq.heapify(heap)

    def _must_wait(self, entry: Any, now: float) -> float:
        """For how many seconds an entry is not to be sent, whatever its schedule says."""
        if left := self._left_after_failure(entry.name):
            return left
        due = instant_after(entry, last_run(entry))
        return float(self._inner.max_interval) if self._has_run(entry, due, now) else 0.0

    def _left_after_failure(self, name: str) -> float:
        """For how many seconds an entry that could not be sent is not to be tried again."""
        failure = self._failures.get(name)
        return max(0.0, failure.not_before - self._clock.monotonic()) if failure else 0.0

    def _adopt(self, entry: Any) -> None:
        """Let an entry have run when the store says, unless the inner scheduler knows of a later run."""
        at, last = self._runs.at(entry.name), last_run(entry)
        if at is None:
            return
        # An entry that has never run as far as the inner scheduler knows has just been given the time of its making.
        is_made_up = not is_kept_elsewhere(entry) and not entry.total_run_count and last and last >= self._opened_at
        if self._runs.take_news(entry.name) or last is None or last < at or is_made_up:
            set_last_run(entry, at)
            is_to_be_written(self._inner, entry)

    def _let_no_last_run_lie_ahead(self, entry: Any) -> None:
        """A clock that was set back, or another beat that is ahead, must not make an entry wait for that time again."""
        now, last = self._clock.time(), last_run(entry)
        if last is not None and last > now + (CLOCKS_DIFFER if counts_from_its_last_run(entry) else _CLOCK_WAS_WRONG):
            self._runs.write(entry.name, now, term=NO_RUN)
            set_last_run(entry, now)

    def is_due(self, entry: Any) -> Any:
        """Whether an entry is to be sent now, as the store's knowledge of it and the setting have it."""
        if left := self._left_after_failure(entry.name):
            return schedstate(is_due=False, next=left)
        self._adopt(entry)
        now = self._clock.time()
        due = self._first_to_send(entry, now)
        is_due, pause = self._is_due(entry)
        if is_due and self._has_run(entry, due, now):
            return schedstate(is_due=False, next=self._inner.max_interval)
        if not is_due:
            return schedstate(is_due=False, next=pause)
        if due is not None and due <= (last_run(entry) or due) and instant_after(entry, now) != due:
            due = None  # Celery before 5.7 errs by an hour on the days on which clocks change
        until = self._until(entry, due, now)
        self._plans[entry.name] = _Plan(due, until)
        if until < now and (following := instant_after(entry, until)) is not None:
            pause = max(0.0, following - now)
        return schedstate(is_due=True, next=pause)

    def _first_to_send(self, entry: Any, now: float) -> float | None:
        """The first instant that was not sent yet, and is to be."""
        due = instant_after(entry, last_run(entry))
        if self._catch_up == "none" and due is not None and due < now - self._late_after:
            # Written down, or else each leader would begin to pass over anew.
            self._runs.write(entry.name, now - self._late_after, term=NO_RUN)
            set_last_run(entry, now - self._late_after)
            due = instant_after(entry, now - self._late_after)
        return due

    def _has_run(self, entry: Any, due: float | None, now: float) -> bool:
        """Whether an entry with one fixed time, which does not look at its last run, was sent for that time already."""
        at = self._runs.at(entry.name)
        if at is None or due is None or due > at:
            return False
        if instant_after(entry, now) != due:
            return False
        if at < now - _SETTLED_AFTER:
            has_run_once(entry)
        return True

    def _until(self, entry: Any, due: float | None, now: float) -> float:
        if due is None:
            return now
        if self._catch_up == "all" and due < now and self._runs.at(entry.name) is not None:
            return due
        # The inner scheduler looked at the clock a little later than we did.
        return due if now < due < now + CLOCKS_DIFFER else now

    def reserve(self, entry: Any) -> Any:
        """Claim an entry, and move its last run on.

        Raises:
            NotClaimed: it must not be sent by this beat, or not now.
        """
        plan = self._claim(entry)
        try:
            reserved = self._reserve(entry)
        except Exception:
            self._take_back(entry)
            raise
        if not keeps_its_own_time(entry):
            set_last_run(reserved, plan.until)
        return reserved

    def _claim(self, entry: Any) -> _Plan:
        """Move the last run of an entry on, for all beats.

        Raises:
            NotClaimed: another beat did, this one does not lead, or the store does not answer.
        """
        name = entry.name
        plan = self._plans.pop(name, None) or self._plan_unasked(entry)
        # Connected before the claim: what lies between that and the message is as short as can be.
        self._inner.producer  # noqa: B018  a cached property
        self._undisturbed.begin()  # until the message is sent
        known = self._runs.known(name)
        if why := self._runs.claim(name, plan.until):
            self._say_skipped(name, why)
            raise NotClaimed(name)
        self._said.pop(name, None)
        self._claimed[name] = known, plan
        return plan

    def _plan_unasked(self, entry: Any) -> _Plan:
        """For a scheduler that reserves what it has not asked `is_due` about: it may be behind what the store knows.

        Raises:
            NotClaimed: it is.
        """
        before, last = entry.last_run_at, last_run(entry)
        self._adopt(entry)
        if entry.last_run_at != before:
            raise NotClaimed(entry.name)
        return _Plan(instant_after(entry, last), self._clock.time())

    def _say_skipped(self, name: str, why: str) -> None:
        """Once, until it is sent or something else keeps it from that."""
        if self._said.get(name) != why:
            self._said[name] = why
            self._notify(EntrySkipped(name, self._term, why))

    def apply_async(
        self,
        entry: Any,
        producer: Any = None,
        advance: bool = True,  # noqa: FBT001, FBT002  Celery's signature
        **kwargs: Any,
    ) -> Any:
        """Send an entry that was claimed; one that a loop of its own has not reserved yet is claimed on the way.

        Raises:
            SchedulingError: the inner scheduler's. The claim was taken back, and the entry is tried again later.
        """
        try:
            plan = self._plan_of(entry, advance=advance)
            sent = self._apply_async(self._marked(entry, plan.due), producer=producer, advance=advance, **kwargs)
        except NotClaimed:
            return None
        except Exception as error:
            self._put_off(entry, error)
            raise
        finally:
            self._undisturbed.end()
        self._claimed.pop(entry.name, None)
        self._failures.pop(entry.name, None)
        return sent

    def _plan_of(self, entry: Any, *, advance: bool) -> _Plan:
        if entry.name not in self._claimed:
            self._plan_in_a_loop_of_its_own(entry)
            if advance:  # it will be reserved, and so claimed, on the way
                return self._plans[entry.name]
            self._claim(entry)
        if self._lease() is None:  # this process was paused since the claim
            self._take_back(entry)
            self._say_skipped(entry.name, "lost")
            raise NotClaimed(entry.name)
        return self._claimed[entry.name][1]

    def _plan_in_a_loop_of_its_own(self, entry: Any) -> None:
        """A scheduler that does not ask `is_due` may be behind what the store knows, or hasty after a failure.

        Raises:
            NotClaimed: it is.
        """
        self._sweep(set())  # what such a scheduler has is not known here; it keeps last runs itself
        at, last = self._runs.at(entry.name), last_run(entry)
        if at is not None and (last is None or last < at) and keeps_its_own_time(entry):
            put_back(entry, at)
            raise NotClaimed(entry.name)
        if self._left_after_failure(entry.name):
            raise NotClaimed(entry.name)
        self._plans[entry.name] = _Plan(instant_after(entry, last), self._clock.time())

    def _marked(self, entry: Any, due: float | None) -> Any:
        """The entry, with what its message says of who sent it."""
        of_whom = {"entry": entry.name, "due": due, "term": self._term}
        return marked(entry, {HEADER: [self._key, self._term], BEAT_HEADER: of_whom})

    def _put_off(self, entry: Any, error: Exception) -> None:
        """A message could not be sent: its instant is tried again in a while."""
        if entry.name in self._claimed:
            failure = self._failures.get(entry.name)
            pause = min(2 * failure.pause, _TRY_AGAIN_AT_MOST) if failure else _TRY_AGAIN
            self._failures[entry.name] = _Failure(self._clock.monotonic() + pause, pause)
            self._say_failed(entry, error, pause)
            self._take_back(entry)

    def _say_failed(self, entry: Any, error: Exception, pause: float) -> None:
        self._notify(EntryFailed(entry.name, self._term, f"{type(error).__name__}: {error}", pause))

    def _take_back(self, entry: Any) -> None:
        """What was claimed and not sent is nobody's again."""
        known, plan = self._claimed.pop(entry.name)
        self._runs.take_back(entry.name, known, last=last_run(entry), due=plan.due)
        # What the inner scheduler cannot undo it has noted as run; the word of the store goes before its memory.
        with suppress(Exception):
            run_never_happened(self._inner, entry)
        self.look_again()

    def refresh(self) -> None:
        """See what others have taken back of their claims.

        Raises:
            StoreError: the store does not answer.
        """
        if self._runs.refresh():
            self.look_again()

    def pay(self) -> None:
        """Send what another has claimed, could not send, and could not give back."""
        schedule = self._inner.schedule if self._runs.owed else {}
        for fact, value in list(self._runs.owed.items()):
            del self._runs.owed[fact]
            due, name = owed(fact)
            if name in schedule:
                self._pay(fact, value, self._marked(schedule[name], due))

    def _pay(self, fact: str, value: str, entry: Any) -> None:
        def send() -> None:
            self._apply_async(entry, producer=self._inner.producer, advance=False)

        self._undisturbed.begin()
        try:
            self._runs.pay(fact, value, send)
        except StoreError:
            self._say_skipped(entry.name, "store")
        except Exception as error:  # noqa: BLE001  it is owed again
            self._say_failed(entry, error, _TRY_AGAIN)
        finally:
            self._undisturbed.end()

    def end(self) -> None:
        """The term is over: see `LastRuns.end`."""
        self._runs.end()

    def _sweep(self, names: set[str]) -> None:
        try:
            self._runs.sweep(names, keep=lambda old: behind(self._inner, old))
        except Exception:  # neither store nor database must answer now: the next sweep finds them
            logger.debug("beat: the sweep was put off", exc_info=True)
