"""One beat of many acts: ``celery -A proj beat -S celery_coord.beat:LeaderScheduler``.

The scheduler that ``coord_beat_scheduler`` names is made when this beat is elected and closed when it no longer leads.
A follower loads nothing, writes nothing and sends nothing. Before each tick, and again before each entry is sent, the
leader makes sure that it leads; that costs no round trip. Each entry is claimed in the store before it is sent, see
`celery_coord.claims`. A beat whose loop is stuck for a ttl stops leading, and so does one whose inner scheduler cannot
be made, or raises: its log says why, and another one is elected.

A beat that a worker embeds ends with its worker.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from billiard.process import current_process
from celery import signals
from celery.beat import Scheduler
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger

from celery_coord.app import coordination
from celery_coord.claims import Claims, NotClaimed
from celery_coord.debts import Debts
from celery_coord.election import Candidate
from celery_coord.errors import StoreError
from celery_coord.keys import LEADER_PREFIX
from celery_coord.last_runs import LastRuns
from celery_coord.lease import Lease
from celery_coord.undisturbed import Undisturbed
from celery_coord.worker import check, refuse, warn_of_memory

#: The name that the beats of an application campaign for.
ELECTION = "beat"
#: How soon a follower that was elected begins to act, in seconds.
_POLL = 0.05
#: How soon a leader looks again that could not claim what was due, in seconds.
_TRY_AGAIN = 0.25
#: How often a leader's loop shows that it is not stuck, in seconds.
_LONGEST_SLEEP = 1.0
#: A take-over needs so many seconds beside the ttl, at most.
_TAKE_OVER = 1.0
#: A wall clock that falls behind the monotonic one by so many seconds was set back.
_SET_BACK = 1.0

logger = get_logger(__name__)


class LeaderScheduler(Scheduler):  # type: ignore[misc]  # Celery has no types
    """Runs another scheduler while this beat leads.

    Args:
        app: the Celery application.
        lazy: made for the banner only: nothing is begun.
        kwargs: what `celery beat` gives to a scheduler; the inner one gets it.

    Raises:
        SystemExit: the configuration cannot work; with one sentence that says why.
    """

    #: RedBeat asks every scheduler for the key of its lock; the election stands for it.
    lock_key = None

    def __init__(self, app: Any, *, lazy: bool = False, **kwargs: Any) -> None:
        super().__init__(app, lazy=True, max_interval=kwargs.get("max_interval"))
        check(app)
        self._coordination = coordination(app)
        settings = self._coordination.settings
        self._inner_class = self._find(settings.beat_scheduler)
        if settings.beat_catch_up != "one" and hasattr(self._inner_class, "maybe_due"):
            refuse(
                f"coord_beat_catch_up = {settings.beat_catch_up!r} needs a scheduler that asks which entries are due, "
                f"and {settings.beat_scheduler} has a loop of its own: write coord_beat_catch_up = 'one'"
            )
        self._inner_kwargs = kwargs
        self._inner: Any = None
        self._claims: Claims | None = None
        self._closed = False
        self._inner_term: int | None = None
        self._parent: int | None = None
        self._undisturbed = Undisturbed()
        self._debts = Debts(self._coordination.store)
        self._is_stepping = False
        self._refresh_at = 0.0
        self._ticked_at = self._coordination.clock.monotonic()
        self._wall_ahead = self._coordination.clock.time() - self._ticked_at
        self._candidate: Candidate | None = None
        if not lazy:
            warn_of_memory(app, "each beat leads")
            self._candidate = self._coordination.candidate(ELECTION, healthy=self._is_healthy)
            self._candidate.steps_down_itself = True

    @staticmethod
    def _find(name: str) -> Any:
        try:
            found = symbol_by_name(name)
        except Exception as error:  # noqa: BLE001  a module may raise anything as it is imported
            refuse(
                f"coord_beat_scheduler names {name!r}, which cannot be imported ({error}): "
                "install what it is in, or write coord_beat_scheduler = 'celery.beat:PersistentScheduler'"
            )
        if not (isinstance(found, type) and issubclass(found, Scheduler)) or issubclass(found, LeaderScheduler):
            refuse(
                f"coord_beat_scheduler names {name!r}, which is not a scheduler to run inside: "
                "write coord_beat_scheduler = 'celery.beat:PersistentScheduler'"
            )
        return found

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Celery's hook: one step of the loop.

        Returns:
            Seconds to sleep.

        Raises:
            SystemExit: this beat was asked to end. Celery says so by an exception from a signal handler, which gets
                lost where it strikes code that puts another one in its place; the loop must not go on then.
        """
        if self._closed or self._is_orphan():
            raise SystemExit
        self._is_stepping = True
        try:
            return self._step(args, kwargs)
        finally:
            self._is_stepping = False

    def _step(self, args: Any, kwargs: Any) -> float:
        candidate = self._candidate
        if candidate is None:
            return _POLL
        self._ticked_at = self._coordination.clock.monotonic()
        candidate.campaign()
        self._debts.settle()
        term = candidate.term
        if term != self._inner_term:
            self._drop_inner()
        if candidate.retiring and term is not None:
            self._close_inner()
            candidate.step_down(candidate.retiring)
            return _POLL
        return _POLL if term is None else self._lead(candidate, term, args, kwargs)

    def _lead(self, candidate: Candidate, term: int, args: Any, kwargs: Any) -> float:
        try:
            inner = self._inner or self._open_inner(candidate, term)
            self._look_at_the_clock()
            self._refresh()
            return min(float(inner.tick(*args, **kwargs)), self._longest_sleep())
        except NotClaimed:
            self._look_again()
            return _TRY_AGAIN
        except Exception:
            logger.exception("beat: cannot act as the leader of term %s, and lets another", term)
            self._drop_inner()
            candidate.step_down()
            return _POLL
        finally:
            self._undisturbed.end()

    def _refresh(self) -> None:
        """Once in a ttl, see what others have taken back of their claims."""
        now = self._coordination.clock.monotonic()
        if self._claims is not None and now >= self._refresh_at:
            self._refresh_at = now + self._coordination.settings.leader_ttl
            try:
                self._claims.refresh()
                self._claims.pay()
            except StoreError:
                return  # the candidate says so

    def _look_at_the_clock(self) -> None:
        """Where the wall clock was set back, what is due must be asked anew: the loop would wait for the old time."""
        clock = self._coordination.clock
        ahead, before = clock.time() - clock.monotonic(), self._wall_ahead
        self._wall_ahead = ahead
        if ahead < before - _SET_BACK:
            logger.warning("beat: the clock was set back by %.0f s", before - ahead)
            self._look_again()

    def _look_again(self) -> None:
        if self._claims is not None:
            self._claims.look_again()

    def _longest_sleep(self) -> float:
        return min(_LONGEST_SLEEP, self._coordination.settings.leader_ttl / 5)

    def _is_healthy(self) -> bool:
        return self._coordination.clock.monotonic() - self._ticked_at < self._coordination.settings.leader_ttl

    def ends_with(self, parent: int) -> None:
        """End when this is no longer the parent of this process: the worker that embeds this beat was killed."""
        self._parent = parent

    def _is_orphan(self) -> bool:
        return self._parent is not None and os.getppid() != self._parent

    def _open_inner(self, candidate: Candidate, term: int) -> Any:
        self._undisturbed.install()
        settings, clock, key = self._coordination.settings, self._coordination.clock, f"{LEADER_PREFIX}{ELECTION}"
        found, opened_at = self._coordination.store.records(key), clock.time()

        def lease() -> Lease | None:
            held = candidate.lease
            return held if held and held.token == term else None

        inner = self._inner_class(app=self.app, **self._inner_kwargs)
        if getattr(inner, "lock_key", None):
            inner.lock_key = None  # RedBeat's own election: ours stands for it
        self._inner, self._inner_term = inner, term
        runs = LastRuns(
            found,
            lease=lease,
            term=term,
            key=key,
            store=self._coordination.store,
            clock=clock,
            debts=self._debts,
            patience=settings.store_timeout,  # for so long an answer is waited for
        )
        self._claims = Claims(
            inner,
            lease=lease,
            term=term,
            key=key,
            runs=runs,
            opened_at=opened_at,
            clock=clock,
            catch_up=settings.beat_catch_up,
            late_after=settings.leader_ttl + _TAKE_OVER,
            notify=self._coordination.notify,
            undisturbed=self._undisturbed,
        )
        self._refresh_at = clock.monotonic()  # what is owed
        return inner

    def _drop_inner(self) -> None:
        """Close the inner scheduler of a term that has ended: what it has not written down is another's to write."""
        dirty = getattr(self._inner, "_dirty", None)
        if isinstance(dirty, set):  # DatabaseScheduler's: it would write over what the next leader wrote
            dirty.clear()
        self._close_inner()

    def _close_inner(self) -> None:
        inner, claims, self._inner, self._inner_term, self._claims = self._inner, self._claims, None, None, None
        if claims is not None:
            claims.end()
        if inner is not None:
            try:
                inner.close()
            except Exception:
                logger.exception("beat: closing %r failed", inner)
            _let_go(inner)

    def should_sync(self) -> bool:
        """Celery's hook: a follower has nothing to write."""
        return self._leads() and bool(self._inner.should_sync())

    def _leads(self) -> bool:
        """Whether what the inner scheduler has to write is still its to write."""
        candidate = self._candidate
        return self._inner is not None and candidate is not None and candidate.term == self._inner_term

    def _do_sync(self) -> None:
        if self._leads():
            self._is_stepping = True
            try:
                self._inner._do_sync()  # noqa: SLF001  Celery's own name for it
            finally:
                self._is_stepping = False

    def sync(self) -> None:
        """Celery's hook."""
        if self._leads():
            self._inner.sync()

    def close(self) -> None:
        """Celery's hook: called twice, the first time by a signal handler."""
        self._closed = True
        if self._is_stepping:
            return  # a signal's handler stands on a step of the loop, and on its queries: we are called again later
        self._undisturbed.remove()
        if not self._leads():
            self._drop_inner()
        self._close_inner()
        if self._candidate is not None:
            self._candidate.resign()

    def get_schedule(self) -> Any:
        """The schedule of the inner scheduler; empty while this beat follows."""
        return {} if self._inner is None else self._inner.schedule

    schedule = property(get_schedule)

    @property
    def info(self) -> Any:
        """What the banner says."""
        settings = self._coordination.settings
        return f"    . leader's scheduler -> {settings.beat_scheduler}\n    . leader's ttl -> {settings.leader_ttl} s"


def _let_go(inner: Any) -> None:
    """What would outlive a scheduler that is closed; there is a new one for each term."""
    finalize = getattr(inner, "_finalize", None)
    if finalize is not None:
        finalize.cancel()  # DatabaseScheduler's: it writes at exit, and keeps the scheduler until then
    vars(inner).pop("producer", None)
    connection = vars(inner).pop("connection", None)  # Celery before 5.7 leaves it open
    if connection is not None:
        with suppress(Exception):  # it may be broken: that is no news
            connection.release()


@signals.beat_embedded_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _end_with_the_worker(sender: Any, **_: Any) -> None:
    scheduler = sender.scheduler
    if isinstance(scheduler, LeaderScheduler):
        # As the worker wrote it down before the fork: it may be gone by now.
        scheduler.ends_with(getattr(current_process(), "_parent_pid", None) or os.getppid())
