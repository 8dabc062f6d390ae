"""What the entry of a schedule says of itself: Celery's own, a row of Django's database, or RedBeat's.

All of them have a schedule and a last run. An entry of Django's (it has a `model`) and one of RedBeat's (it has
`reschedule`) also share that last run with the other beats, by a database or a Redis of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from celery.schedules import schedule as interval
from celery.utils.time import maybe_make_aware

#: By how many seconds two looks at a clock may differ, or two clocks.
CLOCKS_DIFFER = 1.0


def last_run(entry: Any) -> float | None:
    """When an entry ran last, in seconds since the epoch; None: never."""
    return timestamp(entry.last_run_at)


def set_last_run(entry: Any, at: float) -> None:
    """Let an entry have run then, as far as this process knows."""
    entry.last_run_at = _like(entry.last_run_at, at)
    if hasattr(entry, "model"):
        entry.model.last_run_at = entry.last_run_at


def keeps_its_own_time(entry: Any) -> bool:
    """Whether it is put back by `reschedule`, as RedBeat's are: then it is in a Redis, ordered by when it is due."""
    return hasattr(entry, "reschedule")


def put_back(entry: Any, at: float | None = None) -> None:
    """Let an entry that keeps its own time have run then; None: when it says that it has."""
    last = entry.last_run_at or datetime.fromtimestamp(0, UTC)
    entry.reschedule(last_run_at=last if at is None else _like(entry.last_run_at, at))


def is_kept_elsewhere(entry: Any) -> bool:
    """Whether the inner scheduler shares the entry's last run by itself: in Django's database, or RedBeat's Redis."""
    return hasattr(entry, "model") or keeps_its_own_time(entry)


def counts_from_its_last_run(entry: Any) -> bool:
    """Whether the entry has no fixed instants, as an interval has none."""
    return isinstance(entry.schedule, interval) and not entry.schedule.relative


def is_to_be_written(inner: Any, entry: Any) -> None:
    """Let a `DatabaseScheduler` write down what has changed in an entry."""
    if isinstance(dirty := getattr(inner, "_dirty", None), set):
        dirty.add(entry.name)  # its own name for it


def has_run_once(entry: Any) -> None:
    """Let an entry of Django's that is to run once be one that has."""
    if hasattr(entry, "model"):
        entry.model.total_run_count = max(1, entry.model.total_run_count)


def run_never_happened(inner: Any, entry: Any) -> None:
    """Undo what the inner scheduler's `reserve` did."""
    if keeps_its_own_time(entry):
        put_back(entry)
    elif hasattr(entry, "model"):
        entry.model.last_run_at = entry.last_run_at
        entry.model.total_run_count = max(0, entry.model.total_run_count - 1)
    else:
        inner.schedule[entry.name] = entry


def marked(entry: Any, headers: Mapping[str, Any]) -> Any:
    """A copy of an entry whose message has these headers as well."""
    copy = object.__new__(type(entry))  # a copy by its own means would make the entry anew
    added = {**(entry.options.get("headers") or {}), **headers}
    vars(copy).update(vars(entry), options={**entry.options, "headers": added})
    return copy


def instant_after(entry: Any, last: float | None) -> float | None:
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
    now_at = timestamp(now)
    return None if remaining is None or now_at is None else round(now_at + remaining.total_seconds(), 6)


def behind(inner: Any, runs: Mapping[str, float]) -> set[str]:
    """Those entries whose row in Django's database knows of no run that late: its schedule is some of the rows."""
    if not (runs and hasattr(inner, "Model")):
        return set()
    rows = inner.Model._default_manager.filter(name__in=list(runs))  # noqa: SLF001  Django's own name for it
    return {row.name for row in rows if (timestamp(row.last_run_at) or 0.0) < runs[row.name] - CLOCKS_DIFFER}


def timestamp(last: datetime | None) -> float | None:
    """A time of Celery's in seconds since the epoch; those without a zone are UTC."""
    return None if last is None else float(maybe_make_aware(last).timestamp())


def _like(last: datetime | None, at: float) -> datetime:
    """A time as the entry has its own: with its zone, or without one."""
    if last is None or last.tzinfo is None:
        aware = datetime.fromtimestamp(at, UTC)
        return aware if last is None else aware.replace(tzinfo=None)
    return datetime.fromtimestamp(at, last.tzinfo)
