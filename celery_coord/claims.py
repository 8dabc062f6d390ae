"""Each instant of a schedule is claimed in the store before it is sent.

The election keeps things calm; the claim keeps them right. For each entry of the schedule the store knows when it ran
last (`celery_coord.stores.Store.record`, under the election's key), and a beat may only move that on, from what it knew
to what it now sends, while the store has the lease as its own. So an instant is sent at most once even while two beats
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
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from celery.schedules import schedstate, schedule as interval
from celery.utils.log import get_logger
from celery.utils.time import maybe_make_aware

from celery_coord.clock import Clock
from celery_coord.debts import OWED, Debt, Debts, owed
from celery_coord.election import RUN
from celery_coord.errors import StoreError
from celery_coord.events import EntryFailed, EntrySkipped, Event
from celery_coord.lease import Lease
from celery_coord.parent import HEADER
from celery_coord.policy import CatchUp
from celery_coord.stores import Store
from celery_coord.undisturbed import Undisturbed

#: The header of what a beat sends: entry, instant and term.
BEAT_HEADER = "coord_beat"
#: In place of the term, where a last run was written down that was none: an entry that is new, or passed over.
_NO_RUN = 0
#: What could not be sent is tried again after so many seconds, then twice that, and so on, up to the second.
_TRY_AGAIN, _TRY_AGAIN_AT_MOST = 1.0, 30.0
#: What the store knows of an entry that is in the schedule no more is kept for so many seconds: a deploy may be undone.
_KEEP_UNKNOWN = 7 * 86400.0
#: How often that is looked at, in seconds.
_SWEEP_EVERY = 3600.0
#: By how many seconds two looks at a clock may differ, or two clocks.
_CLOCKS_DIFFER = 1.0
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
        store: where the claims are.
        clock: this process's clock.
        records: what the store knows of the entries; read before the inner scheduler was begun.
        opened_at: when that was, in seconds since the epoch.
        catch_up: what becomes of instants that nobody sent.
        late_after: by how many seconds an instant is late that counts as missed.
        notify: is told of what was not sent.
        undisturbed: what keeps a claim and its message together.
        debts: what was claimed and could not be given back yet.
        patience: for how long the store may take to answer, in seconds: a claim that it hears of later is none.
    """

    def __init__(
        self,
        inner: Any,
        *,
        lease: Callable[[], Lease | None],
        term: int,
        key: str,
        store: Store,
        clock: Clock,
        records: Mapping[str, str],
        opened_at: float,
        catch_up: CatchUp,
        late_after: float,
        notify: Callable[[Event], None],
        undisturbed: Undisturbed,
        debts: Debts,
        patience: float,
    ) -> None:
        self._inner = inner
        self._lease = lease
        self._term = term
        self._key = key
        self._store = store
        self._clock = clock
        self._opened_at = opened_at
        self._catch_up = catch_up
        self._late_after = late_after
        self._notify = notify
        self._undisturbed = undisturbed
        self._debts = debts
        self._patience = patience
        self._records = _of_entries(records)
        self._owed, self._paid = _owed(records), _paid(records)
        self._plans: dict[str, _Plan] = {}
        self._claimed: dict[str, tuple[str, _Plan]] = {}
        self._unsure: dict[str, set[str]] = {}
        self._failures: dict[str, _Failure] = {}
        self._revised: set[str] = set()
        self._said: dict[str, str] = {}
        self._sweep_at = 0.0
        self._claimed_under = lease()
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
            if RUN + entry.name not in self._records and not _is_kept_elsewhere(entry):
                self._write(entry.name, _timestamp(entry.last_run_at) or self._clock.time(), was="", term=_NO_RUN)
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
        failure = self._failures.get(entry.name)
        if failure and (left := failure.not_before - self._clock.monotonic()) > 0:
            return left
        due = _instant_after(entry, _timestamp(entry.last_run_at))
        return float(self._inner.max_interval) if self._has_run(entry, due, now) else 0.0

    def _adopt(self, entry: Any) -> None:
        """Let an entry have run when the store says, unless the inner scheduler knows of a later run."""
        record = self._records.get(RUN + entry.name)
        if record is None:
            return
        last, at = _timestamp(entry.last_run_at), _when(record)
        # An entry that has never run as far as the inner scheduler knows has just been given the time of its making.
        is_made_up = not _is_kept_elsewhere(entry) and not entry.total_run_count and last and last >= self._opened_at
        if last is None or last < at or is_made_up or entry.name in self._revised:
            _set_last_run(entry, at)
            self._revised.discard(entry.name)
            if isinstance(dirty := getattr(self._inner, "_dirty", None), set):
                dirty.add(entry.name)  # DatabaseScheduler's own name for what it is to write

    def _let_no_last_run_lie_ahead(self, entry: Any) -> None:
        """A clock that was set back, or another beat that is ahead, must not make an entry wait for that time again."""
        now, last = self._clock.time(), _timestamp(entry.last_run_at)
        counts_from_its_last_run = isinstance(entry.schedule, interval) and not entry.schedule.relative
        if last is not None and last > now + (_CLOCKS_DIFFER if counts_from_its_last_run else _CLOCK_WAS_WRONG):
            self._write(entry.name, now, was=self._records.get(RUN + entry.name, ""), term=_NO_RUN)
            _set_last_run(entry, now)

    def is_due(self, entry: Any) -> Any:
        """Whether an entry is to be sent now, as the store's knowledge of it and the setting have it."""
        failure = self._failures.get(entry.name)
        if failure and (left := failure.not_before - self._clock.monotonic()) > 0:
            return schedstate(is_due=False, next=left)
        self._adopt(entry)
        now = self._clock.time()
        due = self._first_to_send(entry, now)
        is_due, pause = self._is_due(entry)
        if is_due and self._has_run(entry, due, now):
            return schedstate(is_due=False, next=self._inner.max_interval)
        if not is_due:
            return schedstate(is_due=False, next=pause)
        if due is not None and due <= (_timestamp(entry.last_run_at) or due) and _instant_after(entry, now) != due:
            due = None  # Celery before 5.7 errs by an hour on the days on which clocks change
        until = self._until(entry, due, now)
        self._plans[entry.name] = _Plan(due, until)
        if until < now and (following := _instant_after(entry, until)) is not None:
            pause = max(0.0, following - now)
        return schedstate(is_due=True, next=pause)

    def _first_to_send(self, entry: Any, now: float) -> float | None:
        """The first instant that was not sent yet, and is to be."""
        due = _instant_after(entry, _timestamp(entry.last_run_at))
        if self._catch_up == "none" and due is not None and due < now - self._late_after:
            # Written down, or else each leader would begin to pass over anew.
            known = self._records.get(RUN + entry.name, "")
            self._write(entry.name, now - self._late_after, was=known, term=_NO_RUN)
            _set_last_run(entry, now - self._late_after)
            due = _instant_after(entry, now - self._late_after)
        return due

    def _has_run(self, entry: Any, due: float | None, now: float) -> bool:
        """Whether an entry with one fixed time, which does not look at its last run, was sent for that time already."""
        record = self._records.get(RUN + entry.name)
        if record is None or due is None or due > _when(record):
            return False
        if _instant_after(entry, now) != due:
            return False
        if hasattr(entry, "model") and _when(record) < now - _SETTLED_AFTER:
            entry.model.total_run_count = max(1, entry.model.total_run_count)  # what is to run once has
        return True

    def _until(self, entry: Any, due: float | None, now: float) -> float:
        if due is None:
            return now
        if self._catch_up == "all" and due < now and RUN + entry.name in self._records:
            return due
        # The inner scheduler looked at the clock a little later than we did.
        return due if now < due < now + _CLOCKS_DIFFER else now

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
        if not hasattr(entry, "reschedule"):
            _set_last_run(reserved, plan.until)
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
        known = self._records.get(RUN + name, "")
        why = self._write(name, plan.until, was=known)
        if why == "claimed" and self._records.get(RUN + name) in self._unsure.get(name, ()):
            why = self._write(name, plan.until, was=self._records[RUN + name])  # our own, whose answer was lost
        if why:
            self._say_skipped(name, why)
            raise NotClaimed(name)
        self._unsure.pop(name, None)
        self._said.pop(name, None)
        self._claimed[name] = known, plan
        return plan

    def _plan_unasked(self, entry: Any) -> _Plan:
        """For a scheduler that reserves what it has not asked `is_due` about: it may be behind what the store knows.

        Raises:
            NotClaimed: it is.
        """
        before, last = entry.last_run_at, _timestamp(entry.last_run_at)
        self._adopt(entry)
        if entry.last_run_at != before:
            raise NotClaimed(entry.name)
        return _Plan(_instant_after(entry, last), self._clock.time())

    def _say_skipped(self, name: str, why: str) -> None:
        """Once, until it is sent or something else keeps it from that."""
        if self._said.get(name) != why:
            self._said[name] = why
            self._notify(EntrySkipped(name, self._term, why))

    def _write(self, name: str, at: float, *, was: str, term: int | None = None) -> str:
        """Write the last run of an entry down; why that was not to be, or an empty text."""
        lease = self._lease()
        if lease is None:
            return "lost"
        self._claimed_under = lease
        value = f"{at:.6f} {self._term if term is None else term}"
        try:
            answer = self._store.record(lease, RUN + name, value, was=was, within=self._patience)
        except StoreError:
            self._unsure.setdefault(name, set()).add(value)
            return "store"
        if answer.lost:
            return "lost"
        self._know(name, answer.value)
        if not answer.by_us:
            self._revised.add(name)  # also where it is less than what we knew: another has taken its claim back
        return "" if answer.by_us else "claimed"

    def _know(self, name: str, value: str) -> None:
        if value:
            self._records[RUN + name] = value
        else:
            self._records.pop(RUN + name, None)

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
        record, last = self._records.get(RUN + entry.name), _timestamp(entry.last_run_at)
        if record is not None and (last is None or last < _when(record)) and hasattr(entry, "reschedule"):
            entry.reschedule(last_run_at=_like(entry.last_run_at, _when(record)))
            raise NotClaimed(entry.name)
        failure = self._failures.get(entry.name)
        if failure and failure.not_before > self._clock.monotonic():
            raise NotClaimed(entry.name)
        self._plans[entry.name] = _Plan(_instant_after(entry, last), self._clock.time())

    def _marked(self, entry: Any, due: float | None) -> Any:
        """The entry, with what its message says of who sent it."""
        headers = dict(entry.options.get("headers") or {})
        headers[HEADER] = [self._key, self._term]
        headers[BEAT_HEADER] = {"entry": entry.name, "due": due, "term": self._term}
        marked = object.__new__(type(entry))  # a copy by its own means would make the entry anew
        vars(marked).update(vars(entry), options={**entry.options, "headers": headers})
        return marked

    def _put_off(self, entry: Any, error: Exception) -> None:
        """A message could not be sent: its instant is tried again in a while."""
        if entry.name in self._claimed:
            failure = self._failures.get(entry.name)
            pause = min(2 * failure.pause, _TRY_AGAIN_AT_MOST) if failure else _TRY_AGAIN
            self._failures[entry.name] = _Failure(self._clock.monotonic() + pause, pause)
            self._notify(EntryFailed(entry.name, self._term, f"{type(error).__name__}: {error}", pause))
            self._take_back(entry)

    def _take_back(self, entry: Any) -> None:
        """What was claimed and not sent is nobody's again, and so whoever leads then sends it: that may be another."""
        name = entry.name
        known, plan = self._claimed.pop(name)
        claimed, last = self._records[RUN + name], _timestamp(entry.last_run_at)
        if not known and last is not None:  # another may have adopted the claim, and has to find what was before it
            known = f"{last:.6f} {_NO_RUN}"
        assert self._claimed_under  # noqa: S101  it was claimed
        self._know(name, known)
        self._unsure.setdefault(name, set()).add(claimed)  # should the store not answer
        self._debts.add(Debt(name, self._claimed_under, claimed, known, plan.due))
        # What the inner scheduler cannot undo it has noted as run; the word of the store goes before its memory.
        with suppress(Exception):
            _run_never_happened(self._inner, entry)
        self._revised.add(name)
        self.look_again()

    def refresh(self) -> None:
        """See what others have taken back: a publish that failed after its leader's end was that one's to claim.

        Raises:
            StoreError: the store does not answer.
        """
        records = self._store.records(self._key)
        now, self._owed, self._paid = _of_entries(records), _owed(records), _paid(records)
        for name, value in self._records.items():
            if now.get(name) in self._unsure.get(name.removeprefix(RUN), ()):  # our own, whose answer was lost
                now[name] = value
        revised = {name.removeprefix(RUN) for name, value in self._records.items() if now.get(name) != value}
        if revised:
            self._records = now
            self._revised |= revised
            self.look_again()

    def pay(self) -> None:
        """Send what another has claimed, could not send, and could not give back."""
        schedule = self._inner.schedule if self._owed else {}
        for fact, value in list(self._owed.items()):
            del self._owed[fact]
            due, name = owed(fact)
            lease = self._lease()
            if name in schedule and lease is not None:
                self._pay(lease, fact, value, self._marked(schedule[name], due))

    def _pay(self, lease: Lease, fact: str, value: str, entry: Any) -> None:
        paid = f"{value} {self._term}"
        self._undisturbed.begin()
        try:
            if not self._store.record(lease, fact, paid, was=value, within=self._patience).by_us:
                return
            try:
                self._apply_async(entry, producer=self._inner.producer, advance=False)
            except Exception as error:  # noqa: BLE001  it is owed again, and seen at the next look
                self._store.record(lease, fact, value, was=paid, by_holder=False)
                self._notify(EntryFailed(entry.name, self._term, f"{type(error).__name__}: {error}", _TRY_AGAIN))
            # What is paid stays until it is swept: who owed it may not have heard that this is known, and say it again.
        except StoreError:
            self._say_skipped(entry.name, "store")
        finally:
            self._undisturbed.end()

    def end(self) -> None:
        """The term is over: what was asked for, and never answered, is given back if it was granted."""
        for name, values in self._unsure.items():
            known = self._records.get(RUN + name, "")
            for value in values - {known}:
                if self._claimed_under is not None:
                    self._debts.add(Debt(name, self._claimed_under, value, known, None))

    def _sweep(self, names: set[str]) -> None:
        """Once in a while, forget entries that were taken out of the schedule long ago."""
        now = self._clock.time()
        lease = self._lease()
        if now < self._sweep_at or lease is None:
            return
        self._sweep_at = now + _SWEEP_EVERY
        unknown = {name.removeprefix(RUN): _when(value) for name, value in self._records.items()}
        old = {name: at for name, at in unknown.items() if name not in names and at < now - _KEEP_UNKNOWN}
        try:
            gone = [RUN + name for name in old.keys() - _behind(self._inner, old)]
            gone += [fact for fact in self._paid if owed(fact)[0] < now - _KEEP_UNKNOWN]
            if gone and self._store.erase(lease, gone):
                for record in gone:
                    self._records.pop(record, None)
                    self._paid.discard(record)
        except Exception:  # neither store nor database must answer now: the next sweep finds them
            logger.debug("beat: the sweep was put off", exc_info=True)


def _of_entries(records: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in records.items() if name.startswith(RUN)}


def _owed(records: Mapping[str, str]) -> dict[str, str]:
    """What is owed and not being paid."""
    return {name: value for name, value in records.items() if name.startswith(OWED) and " " not in value}


def _paid(records: Mapping[str, str]) -> set[str]:
    """What was owed, and was or is being paid."""
    return {name for name, value in records.items() if name.startswith(OWED) and " " in value}


def _behind(inner: Any, runs: Mapping[str, float]) -> set[str]:
    """Those entries whose row in Django's database knows of no run that late: its schedule is some of the rows."""
    if not (runs and hasattr(inner, "Model")):
        return set()
    rows = inner.Model._default_manager.filter(name__in=list(runs))  # noqa: SLF001  Django's own name for it
    return {row.name for row in rows if (_timestamp(row.last_run_at) or 0.0) < runs[row.name] - _CLOCKS_DIFFER}


def _when(record: str) -> float:
    """The time that a record begins with, in seconds since the epoch."""
    return float(record.partition(" ")[0])


def _timestamp(last: datetime | None) -> float | None:
    """Celery's times without a zone are UTC."""
    return None if last is None else float(maybe_make_aware(last).timestamp())


def _like(last: datetime | None, at: float) -> datetime:
    """A time as the entry has its own: with its zone, or without one."""
    if last is None or last.tzinfo is None:
        aware = datetime.fromtimestamp(at, UTC)
        return aware if last is None else aware.replace(tzinfo=None)
    return datetime.fromtimestamp(at, last.tzinfo)


def _is_kept_elsewhere(entry: Any) -> bool:
    """Whether the inner scheduler shares the entry's last run by itself: in Django's database, or RedBeat's Redis."""
    return hasattr(entry, "model") or hasattr(entry, "reschedule")


def _set_last_run(entry: Any, at: float) -> None:
    entry.last_run_at = _like(entry.last_run_at, at)
    if hasattr(entry, "model"):
        entry.model.last_run_at = entry.last_run_at


def _run_never_happened(inner: Any, entry: Any) -> None:
    """Undo what the inner scheduler's `reserve` did."""
    if hasattr(entry, "reschedule"):
        entry.reschedule(last_run_at=entry.last_run_at or datetime.fromtimestamp(0, UTC))
    elif hasattr(entry, "model"):
        entry.model.last_run_at = entry.last_run_at
        entry.model.total_run_count = max(0, entry.model.total_run_count - 1)
    else:
        inner.schedule[entry.name] = entry


def _instant_after(entry: Any, last: float | None) -> float | None:
    """The first instant of an entry's schedule after a time, in seconds since the epoch; None where it does not say."""
    if last is None:
        return None
    schedule = entry.schedule
    try:
        now, nowfun = schedule.now(), schedule.nowfun
        schedule.nowfun = lambda: now  # or else the schedule would look at a clock that goes on meanwhile
        try:
            remaining = schedule.remaining_estimate(datetime.fromtimestamp(last, now.tzinfo or UTC))
        finally:
            schedule.nowfun = nowfun
    except Exception:  # noqa: BLE001  a schedule of the user's may not know
        return None
    now_at = _timestamp(now)
    return None if remaining is None or now_at is None else round(now_at + remaining.total_seconds(), 6)
