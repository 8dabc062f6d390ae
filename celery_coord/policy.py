"""Policies: what a task asks for, frozen, and checked where it is written."""

from __future__ import annotations

import difflib
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeGuard, get_args

from celery_coord.errors import ConfigurationError

Seconds = float | timedelta
OnConflict = Literal["drop"]
OnLost = Literal["flag", "raise"]
OnDrop = Literal["revoke", "return"]
OnStoreError = Literal["retry", "run", "fail"]
CatchUp = Literal["one", "all", "none"]

ON_CONFLICT: tuple[str, ...] = get_args(OnConflict)
ON_LOST: tuple[str, ...] = get_args(OnLost)
ON_DROP: tuple[str, ...] = get_args(OnDrop)
ON_STORE_ERROR: tuple[str, ...] = get_args(OnStoreError)
CATCH_UP: tuple[str, ...] = get_args(CatchUp)

#: The shortest lease: below it a renewal every third is mostly round trips.
SHORTEST_LEASE = 0.1


@dataclass(frozen=True, slots=True)
class Exclusive:
    """At most one run at a time on a key.

    Args:
        ttl: how long a lease outlives its last renewal, in seconds or as a timedelta. It is renewed every third of
            that while the body runs. None: the setting ``coord_lease_ttl``.
        max_hold: for how long a body's lease is renewed at most, in seconds or as a timedelta; a body that runs
            longer loses it. None: the task's time limit if it has one, else the setting ``coord_max_hold``.
        on_conflict: what becomes of a run that finds the key held. There is ``"drop"``. None: the setting
            ``coord_on_conflict``.
        hold_on_retry: whether a run that is to be retried keeps its key until the retry is due, and a ttl more, also
            where no worker lives meanwhile. False: the key is free in between.
        on_lost: what a body learns of the loss of its lease. ``"flag"``: what it asks for. ``"raise"``: it is
            interrupted by `celery_coord.LeaseLost` as well, where the pool can: in the main thread of a process
            (prefork, solo) of a system with POSIX signals.

    Raises:
        ConfigurationError: a value is out of range or of the wrong kind.
    """

    ttl: Seconds | None = None
    max_hold: Seconds | None = None
    on_conflict: OnConflict | None = None
    hold_on_retry: bool = False
    on_lost: OnLost = "flag"

    def __post_init__(self) -> None:
        if self.ttl is not None:
            ttl = seconds("Exclusive(ttl=...)", self.ttl, example="Exclusive(ttl=30)", least=SHORTEST_LEASE)
            object.__setattr__(self, "ttl", ttl)
        if self.max_hold is not None:
            most = seconds("Exclusive(max_hold=...)", self.max_hold, example="Exclusive(max_hold=3600)")
            object.__setattr__(self, "max_hold", most)
        if self.on_conflict is not None:
            one_of("Exclusive(on_conflict=...)", self.on_conflict, ON_CONFLICT)
        if not isinstance(self.hold_on_retry, bool):
            msg = (
                f"Exclusive(hold_on_retry=...) is True or False, not {self.hold_on_retry!r}: "
                "write Exclusive(hold_on_retry=True)"
            )
            raise ConfigurationError(msg)
        one_of("Exclusive(on_lost=...)", self.on_lost, ON_LOST)


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A quiet period: a run that ended well keeps the next ones away for a while.

    Args:
        seconds: how long after a good end, in seconds or as a timedelta.
        on_failure: how long after a failure; None: a failure leaves none. A retry is no failure until the last one.
        jitter: the period is made longer by a random part of up to this proportion, so that keys that were
            refreshed together do not come due together. Never shorter.

    Raises:
        ConfigurationError: a value is out of range or of the wrong kind.
    """

    seconds: Seconds
    on_failure: Seconds | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", seconds("cooldown", self.seconds, example="cooldown=60"))
        if self.on_failure is not None:
            failed = seconds("Cooldown(on_failure=...)", self.on_failure, example="Cooldown(60, on_failure=10)")
            object.__setattr__(self, "on_failure", failed)
        if not _is_number(self.jitter) or not 0 <= self.jitter <= 1:
            msg = (
                f"Cooldown(jitter=...) is a proportion from 0 to 1, not {self.jitter!r}: write Cooldown(60, jitter=0.1)"
            )
            raise ConfigurationError(msg)

    def after_success(self) -> float:
        """The seconds of one quiet period after a good end."""
        return self._jittered(float(self.seconds))  # type: ignore[arg-type]  # a number since __post_init__

    def after_failure(self) -> float:
        """The seconds of one quiet period after a failure; 0 for none."""
        return 0.0 if self.on_failure is None else self._jittered(float(self.on_failure))  # type: ignore[arg-type]

    def _jittered(self, length: float) -> float:
        return length * (1 + random.uniform(0, self.jitter)) if self.jitter else length  # noqa: S311  not a secret


def seconds(what: str, value: object, *, example: str, least: float = 0.0) -> float:
    """`value` as a number of seconds.

    Args:
        what: what it is called where it was written.
        value: a number, or a timedelta.
        example: what to write instead, if it is neither.
        least: the smallest value that is allowed; 0 itself never is.

    Raises:
        ConfigurationError: it is not a finite number above 0, or is below `least`.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if not _is_number(value):
        msg = f"{what} is a number of seconds or a timedelta, not {value!r}: write {example}"
        raise ConfigurationError(msg)
    if value <= 0 or value < least:
        msg = f"{what} is {f'at least {least}' if least else 'more than 0'} seconds, not {value!r}: write {example}"
        raise ConfigurationError(msg)
    return float(value)


def one_of(what: str, value: object, allowed: tuple[str, ...]) -> str:
    """`value`, if it is one of the allowed words.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(value, str) or value not in allowed:
        msg = f"{what} is one of {', '.join(map(repr, allowed))}, not {value!r}{did_you_mean(value, allowed)}"
        raise ConfigurationError(msg)
    return value


def did_you_mean(value: object, allowed: Iterable[str], *, likeness: float = 0.6) -> str:
    """A clause that names the word that was probably meant; may be empty."""
    near = difflib.get_close_matches(str(value), list(allowed), n=1, cutoff=likeness)
    return f": did you mean {near[0]!r}?" if near else ""


def exclusive_from(value: object) -> Exclusive | None:
    """The policy that the option ``exclusive`` asks for.

    Raises:
        ConfigurationError: it is neither a bool nor an `Exclusive`.
    """
    match value:
        case None | False:
            return None
        case True:
            return Exclusive()
        case Exclusive():
            return value
    msg = f"exclusive is True, False or Exclusive(...), not {value!r}: write exclusive=True"
    raise ConfigurationError(msg)


def cooldown_from(value: object) -> Cooldown | None:
    """The policy that the option ``cooldown`` asks for.

    Raises:
        ConfigurationError: it is neither a length of time nor a `Cooldown`.
    """
    match value:
        case None | False:
            return None
        case Cooldown():
            return value
        case timedelta() | int() | float() if value is not True:
            return Cooldown(value)
    msg = f"cooldown is seconds, a timedelta or Cooldown(...), not {value!r}: write cooldown=60"
    raise ConfigurationError(msg)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
