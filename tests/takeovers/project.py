"""The application of the beats: ``celery -A tests.takeovers.project beat``. Its instants are known to the judge."""

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from celery.schedules import BaseSchedule, schedstate

from celery_coord.signals import SIGNALS

#: The server, and where the signals of a process are written down: set by who starts it.
URL = "TAKEOVERS_URL"
TOLD = "TAKEOVERS_TOLD"

TTL = 1.0
#: The entries whose instants are a grid of the wall clock, and the seconds between two of them.
GRIDS = {"quarter-a": 0.25, "quarter-b": 0.25, "quarter-c": 0.25, "second": 1.0}
#: The entries that are due so many seconds after their last run.
INTERVALS = {"half": 0.5}

#: A datetime keeps microseconds: an instant that was run may be remembered as a little before itself.
_ROUNDING = 0.001


class Grid(BaseSchedule):  # type: ignore[misc]  # Celery has no types
    """Due at each multiple of so many seconds of the wall clock.

    Args:
        step: seconds between two instants.
    """

    def __init__(self, step: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.step = step

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Celery's hook: from now until the first instant after the last run."""
        return timedelta(seconds=self._after(last_run_at) - self.now().timestamp())

    def is_due(self, last_run_at: datetime) -> Any:
        """Celery's hook: whether there was an instant since the last run, and when to ask again."""
        now = self.now()
        left = self._after(last_run_at) - now.timestamp()
        if left > 0:
            return schedstate(is_due=False, next=left)
        return schedstate(is_due=True, next=self._after(now) - now.timestamp())

    def _after(self, instant: datetime) -> float:
        return ((self.maybe_make_aware(instant).timestamp() + _ROUNDING) // self.step + 1) * self.step

    def __reduce__(self) -> Any:
        return self.__class__, (self.step,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and other.step == self.step

    def __hash__(self) -> int:
        return hash(self.step)

    def __repr__(self) -> str:
        return f"<each multiple of {self.step} s>"


def make_app(url: str) -> Celery:
    """The application on a server; it leaves Celery's current application alone."""
    app = Celery("takeovers", broker=url, set_as_current=False)
    app.conf.update(
        coord_url=url,
        coord_leader_ttl=TTL,
        coord_store_timeout=TTL / 5,  # so that a short stall, too, is noticed: an answer may come when nobody waits
        coord_beat_catch_up="all",
        beat_schedule={
            **{name: {"task": "act", "schedule": Grid(step, app=app)} for name, step in GRIDS.items()},
            **{name: {"task": "act", "schedule": seconds} for name, seconds in INTERVALS.items()},
        },
    )
    return app


def tell_signals(file: Path) -> None:
    """Write down what the leadership does. Into a file: the server may be the one that has stopped."""
    for signal in SIGNALS.values():
        if signal.name.startswith("leader_"):
            signal.connect(partial(_tell, file, signal.name), weak=False)


def _tell(file: Path, which: str, /, *, sender: object, signal: object, **fields: Any) -> None:
    with file.open("a", encoding="utf-8") as told:
        told.write(json.dumps({"signal": which, "at": time.time(), "pid": os.getpid(), **fields}) + "\n")


if URL in os.environ:  # started by the driver, not imported by it
    tell_signals(Path(os.environ[TOLD]))
    app = make_app(os.environ[URL])
