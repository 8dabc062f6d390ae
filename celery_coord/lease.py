"""Leases: who may act on a key, until when, and how long that may be believed.

A *lease* is the right of an *owner* to act on a *key* until a time. A *refusal*, `Held` or `Cooling`, says why
there is none; it is a value, never an exception.

The store measures a lease from when it granted it, the holder from *before it asked*: whatever the network did
in between, the holder stops believing first. `trusted_until` also takes off a margin for clocks that
do not run at quite the same speed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

#: The part of a lease that is not believed in, for two clocks that drift apart.
TRUST_MARGIN = 0.05
#: A lease is renewed when this part of its ttl has passed.
RENEW_AFTER = 1 / 3
#: A renewal may be late by this part of the ttl before others take its holder for dead.
OVERDUE_AFTER = 1 / 12


def trusted_until(asked_at: float, ttl: float) -> float:
    """The instant at which a holder stops believing in its lease.

    Args:
        asked_at: when the request was about to be sent, on the holder's monotonic clock.
        ttl: how long the store keeps the lease, in seconds.

    Returns:
        An instant on the holder's monotonic clock.
    """
    return asked_at + ttl * (1 - TRUST_MARGIN)


@dataclass(frozen=True, slots=True)
class Owner:
    """The id of one acquisition, never used twice.

    Attributes:
        run: what acquires: the id of a task's run, or the name of a component. Has no meaning to the store, but
            two owners of one run are told from two strangers.
        generation: grows each time a run is published anew by itself (a retry, a replacement). A later
            generation takes the lease over from an earlier one of the same run.
        nonce: what makes it unique.
    """

    run: str
    generation: int
    nonce: str

    @classmethod
    def new(cls, run: str, generation: int = 0) -> Owner:
        """A fresh owner."""
        return cls(run, generation, os.urandom(6).hex())

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that was written as `text`, or None if another library wrote it."""
        head, _, nonce = text.rpartition("/")
        run, _, generation = head.rpartition("/")
        if not (run and nonce and generation.isascii() and generation.isdecimal()):
            return None
        return cls(run, int(generation), nonce)

    def __str__(self) -> str:
        return f"{self.run}/{self.generation}/{self.nonce}"


def run_and_generation(owner: str) -> tuple[str, str]:
    """The run of an owner that we wrote as text, and its generation."""
    run, generation, _ = owner.rsplit("/", 2)
    return run, generation


_KEPT = "/kept"
#: A store may count in milliseconds.
_ROUNDING = 0.01


def kept_for_next(owner: str) -> str:
    """Who holds a key that is kept for the next generation of an owner's run: nobody that renews or settles."""
    return f"{owner.rpartition('/')[0]}{_KEPT}"


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as the store granted it; a renewal does not change it.

    Attributes:
        key: the name of what is guarded.
        owner: the id of this acquisition, as text.
        token: the fencing token: larger than that of every earlier lease of the key.
        ttl: how long the store keeps it if it is not renewed, in seconds.
        remember: for how long it is remembered, from each renewal on, that its run has begun, in seconds; 0: it is not.
    """

    key: str
    owner: str
    token: int
    ttl: float
    remember: float = 0.0


@dataclass(frozen=True, slots=True)
class Held:
    """A refusal: another owner holds the key.

    Attributes:
        key: the name of what is guarded.
        holder: the owner that holds it, as text; anything at all where another library took the lock.
        left: seconds until its lease ends if it is not renewed; None where it has no end.
        token: its fencing token; None where another library took the lock.
        label: who that is, in words; may be empty.
        ttl: how long its lease outlives a renewal, in seconds; None where another library took the lock.
        begun: whether the run that was refused has been admitted before.
    """

    key: str
    holder: str
    left: float | None
    token: int | None = None
    label: str = ""
    ttl: float | None = None
    begun: bool = False

    @property
    def overdue(self) -> bool:
        """Whether the holder has missed a renewal, so that it may be dead.

        Less is left than a live holder lets it; or more than it can have, since the store's clock was set back and it
        has not renewed after that. A key that is kept for a retry is nobody's to renew.
        """
        if self.left is None or self.ttl is None or self.holder.endswith(_KEPT):
            return False
        return self.left < self.ttl * (1 - RENEW_AFTER - OVERDUE_AFTER) or self.left > self.ttl + _ROUNDING

    @property
    def reason(self) -> Literal["held"]:
        """The word for this refusal."""
        return "held"

    def __str__(self) -> str:
        who = f"{self.holder} ({self.label})" if self.label else self.holder
        return f"{self.key} is held by {who}, {_left(self.left)}"


@dataclass(frozen=True, slots=True)
class Cooling:
    """A refusal: the key is in its quiet period.

    Attributes:
        key: the name of what is guarded.
        holder: the owner whose run left the cooldown.
        left: seconds until it ends; None where somebody removed its end.
    """

    key: str
    holder: str
    left: float | None

    @property
    def reason(self) -> Literal["cooling"]:
        """The word for this refusal."""
        return "cooling"

    def __str__(self) -> str:
        return f"{self.key} is cooling since the run of {self.holder}, {_left(self.left)}"


@dataclass(frozen=True, slots=True)
class Done:
    """A refusal: the run itself has ended already, or has handed over to its next generation.

    Attributes:
        key: the name of what is guarded.
        age: the seconds since then.
        told: whether that end is known to have been told to all who wait for it; else the result must say so.
    """

    key: str
    age: float
    told: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of a fact that a holder wanted to write down.

    Attributes:
        by_us: whether it stands there now.
        lost: whether it was refused because the lease is not the writer's any more.
        value: what stands there, as far as it is known; else what was to be written.
    """

    by_us: bool
    lost: bool
    value: str


#: Another run keeps this one away.
Refusal = Held | Cooling


def is_of_same_run(refusal: Refusal, owner: Owner) -> bool:
    """Whether it is the same run that refuses: an earlier delivery of the message, or a later generation."""
    holder = Owner.parse(refusal.holder)
    return holder is not None and holder.run == owner.run and holder.generation >= owner.generation


@dataclass(frozen=True, slots=True)
class Look:
    """What the store knows of a key at one instant; false when it is free and not cooling.

    Attributes:
        key: the name of what is guarded.
        held: who holds it, or None.
        cooling: its quiet period, or None.
    """

    key: str
    held: Held | None
    cooling: Cooling | None

    def __bool__(self) -> bool:
        return self.held is not None or self.cooling is not None

    def __str__(self) -> str:
        return "; ".join(str(fact) for fact in (self.held, self.cooling) if fact) or f"{self.key} is free"


def _left(seconds: float | None) -> str:
    return "without an end" if seconds is None else f"{seconds:.1f} s left"
