"""Where time comes from.

A holder believes in its lease by its own *monotonic* clock; the store decides by its own. The two are never
compared, so neither needs to be right, only to run at about the same speed (see `celery_coord.lease.trusted_until`).
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """The one object that tells time; `celery_coord.testing.FakeClock` is moved by hand."""

    def monotonic(self) -> float:
        """Seconds that only grow: what durations are measured by."""
        ...

    def time(self) -> float:
        """Seconds since the epoch: what people read, and the floor of the memory store's tokens."""
        ...


class SystemClock:
    """The clock of this machine."""

    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)
