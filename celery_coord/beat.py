"""One beat of many acts: ``celery -A proj beat -S celery_coord.beat:LeaderScheduler``.

The scheduler that ``coord_beat_scheduler`` names is made when this beat is elected and closed when it no longer leads.
A follower loads nothing, writes nothing and sends nothing. Before each tick, and again before each entry is sent, the
leader makes sure that it leads; that costs no round trip. A beat whose loop is stuck for a ttl stops leading.

Not promised yet: what the last leader sent is known to the next one only as far as the inner scheduler shares it
(a database does, `PersistentScheduler`'s file does not). So around a take-over an instant may be sent twice, or not
at all.
"""

from __future__ import annotations

from typing import Any

from celery.beat import Scheduler
from celery.utils.imports import symbol_by_name
from celery.utils.log import get_logger

from celery_coord.app import coordination
from celery_coord.election import Election
from celery_coord.errors import CoordError
from celery_coord.worker import check, refuse

#: The name that the beats of an application campaign for.
ELECTION = "beat"
#: How soon a follower that was elected begins to act, in seconds.
_POLL = 0.1
#: How often a leader's loop shows that it is not stuck, in seconds.
_LONGEST_SLEEP = 1.0

logger = get_logger(__name__)


class NotLeading(CoordError):
    """An entry came due just as the leadership ended: the next leader sends it."""


class LeaderScheduler(Scheduler):  # type: ignore[misc]  # Celery has no types
    """Runs another scheduler while this beat leads.

    Args:
        app: the Celery application.
        lazy: made for the banner only: nothing is begun.
        kwargs: what `celery beat` gives to a scheduler; the inner one gets it.

    Raises:
        SystemExit: the configuration cannot work; with one sentence that says why.
    """

    def __init__(self, app: Any, *, lazy: bool = False, **kwargs: Any) -> None:
        super().__init__(app, lazy=True, max_interval=kwargs.get("max_interval"))
        check(app)
        self._coordination = coordination(app)
        self._inner_class = self._find(self._coordination.settings.beat_scheduler)
        self._inner_kwargs = kwargs
        self._inner: Any = None
        self._closed = False
        self._inner_term: int | None = None
        self._ticked_at = self._coordination.clock.monotonic()
        self._election: Election | None = (
            None if lazy else self._coordination.election(ELECTION, healthy=self._is_healthy)
        )

    @staticmethod
    def _find(name: str) -> Any:
        try:
            found = symbol_by_name(name)
        except Exception as error:  # noqa: BLE001  a module may raise anything as it is imported
            refuse(
                f"coord_beat_scheduler names {name!r}, which cannot be imported ({error}): "
                "write coord_beat_scheduler = 'celery.beat:PersistentScheduler'"
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
        if self._closed:
            raise SystemExit
        if self._election is None:
            return _POLL
        self._ticked_at = self._coordination.clock.monotonic()
        self._election.campaign()
        term = self._election.term
        if term is None:
            self._close_inner()
            return _POLL
        if term != self._inner_term:
            self._close_inner()
            self._open_inner(term)
        return min(float(self._inner.tick(*args, **kwargs)), self._longest_sleep())

    def _longest_sleep(self) -> float:
        return min(_LONGEST_SLEEP, self._coordination.settings.leader_ttl / 5)

    def _is_healthy(self) -> bool:
        return self._coordination.clock.monotonic() - self._ticked_at < self._coordination.settings.leader_ttl

    def _open_inner(self, term: int) -> None:
        self._inner = self._inner_class(app=self.app, **self._inner_kwargs)
        self._inner_term = term
        send = self._inner.apply_async

        def send_while_leading(entry: Any, *args: Any, **kwargs: Any) -> Any:
            if self._election is None or self._election.term != term:
                raise NotLeading(f"{entry.name} is left to the next leader")
            return send(entry, *args, **kwargs)

        self._inner.apply_async = send_while_leading

    def _close_inner(self) -> None:
        inner, self._inner, self._inner_term = self._inner, None, None
        if inner is not None:
            try:
                inner.close()
            except Exception:
                logger.exception("beat: closing %r failed", inner)

    def should_sync(self) -> bool:
        """Celery's hook: a follower has nothing to write."""
        return self._inner is not None and bool(self._inner.should_sync())

    def _do_sync(self) -> None:
        if self._inner is not None:
            self._inner._do_sync()  # noqa: SLF001  Celery's own name for it

    def sync(self) -> None:
        """Celery's hook."""
        if self._inner is not None:
            self._inner.sync()

    def close(self) -> None:
        """Celery's hook: called twice, the first time by a signal handler."""
        self._closed = True
        self._close_inner()
        if self._election is not None:
            self._election.resign()

    def get_schedule(self) -> Any:
        """The schedule of the inner scheduler; empty while this beat follows."""
        return {} if self._inner is None else self._inner.schedule

    schedule = property(get_schedule)

    @property
    def info(self) -> Any:
        """What the banner says."""
        settings = self._coordination.settings
        return f"    . leader's scheduler -> {settings.beat_scheduler}\n    . leader's ttl -> {settings.leader_ttl} s"
