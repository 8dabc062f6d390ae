"""The gate: a run is admitted, runs, and settles.

    acquire ──refused──▶ Held | Cooling          a value; the body never starts, nothing of the holder's is touched
       │
     leased ──▶ the keeper renews ──▶ body ──┬─ ended well ──▶ release  + quiet period     one atomic step,
                                             ├─ failed ──────▶ abandon  + quiet period     and only if the
                                             └─ neither ─────▶ abandon                     lease is still ours

One round trip to be admitted, one to settle. A run that takes no lease (a quiet period alone) looks before it runs,
and begins the period when it has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar, overload

from celery_coord.clock import Clock
from celery_coord.errors import NoLease, StoreError
from celery_coord.events import (
    CooldownStarted,
    Event,
    LeaseAbandoned,
    LeaseAcquired,
    LeaseLost,
    LeaseReleased,
    StoreFailed,
)
from celery_coord.lease import Lease, Owner, Refusal
from celery_coord.policy import Cooldown
from celery_coord.renewal import Holding, Keeper
from celery_coord.stores import Store

T = TypeVar("T")
D = TypeVar("D")

_current: ContextVar[Holding | None] = ContextVar("celery_coord_lease", default=None)
_REQUIRED = object()


@overload
def current_lease() -> Holding: ...
@overload
def current_lease(default: D) -> Holding | D: ...
def current_lease(default: object = _REQUIRED) -> object:
    """The lease that the running body holds.

    Args:
        default: what to return where there is none.

    Returns:
        A `Holding`: its ``token``, whether it is ``lost``, and ``ensure()``. Threads that the body starts do not
        inherit it: hand it to them.

    Raises:
        NoLease: there is none, and no default was given.
    """
    holding = _current.get()
    if holding is not None:
        return holding
    if default is _REQUIRED:
        msg = (
            "no lease is held here: a run of a task with exclusive=True holds one, a plain call like task(1) does not; "
            "current_lease(None) returns None instead"
        )
        raise NoLease(msg)
    return default


class Ending(Enum):
    """How a body ended, as far as a quiet period cares."""

    WELL = auto()
    FAILED = auto()
    NEITHER = auto()


@dataclass(frozen=True, slots=True)
class Claim:
    """What one run asks of the gate.

    Attributes:
        key: the name of what is guarded.
        owner: the id of this acquisition.
        label: who asks, in words.
        ttl: how long a lease outlives its last renewal, in seconds; 0 where none is asked for.
        max_hold: for how long it is renewed at most, in seconds.
        cooldown: the quiet period that the run leaves, or None.
        heed_cooldown: whether a quiet period keeps it away.
    """

    key: str
    owner: Owner
    label: str = ""
    ttl: float = 0.0
    max_hold: float = 0.0
    cooldown: Cooldown | None = None
    heed_cooldown: bool = False


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The store did not say whether the run is admitted: it is neither refused nor let through."""

    error: StoreError


@dataclass(frozen=True, slots=True)
class Admitted(Generic[T]):
    """The run was admitted, and its body returned `value`."""

    value: T


class Gate:
    """Admits runs.

    Args:
        store: who decides.
        keeper: who renews.
        clock: the holder's clock.
        notify: is told of everything that happens.
    """

    def __init__(self, store: Store, keeper: Keeper, clock: Clock, notify: Callable[[Event], None]) -> None:
        self._store = store
        self._keeper = keeper
        self._clock = clock
        self._notify = notify

    def admit(
        self, claim: Claim, body: Callable[[], T], ending: Callable[[BaseException], Ending]
    ) -> Admitted[T] | Refusal | Unanswered:
        """Run a body, if its key is to be had.

        Args:
            claim: what the run asks for.
            body: what runs.
            ending: what an exception of the body means.

        Returns:
            The body's value as `Admitted`, or why it did not start.

        Raises:
            BaseException: what the body raised, after it was settled.
        """
        return self._with_lease(claim, body, ending) if claim.ttl else self._without_lease(claim, body, ending)

    def _with_lease(
        self, claim: Claim, body: Callable[[], T], ending: Callable[[BaseException], Ending]
    ) -> Admitted[T] | Refusal | Unanswered:
        over, outer = False, _current.get()
        try:
            holding = self._acquire(claim)
            if not isinstance(holding, Holding):
                over = True
                return holding
            try:
                self._keeper.watch(holding)
                self._notify(LeaseAcquired(claim.key, holding.lease.owner, holding.token))
                _current.set(holding)
                value = body()
                _current.set(outer)
            except BaseException as error:
                _current.set(outer)
                self._settle(holding, claim, ending(error))
                over = True
                raise
            self._settle(holding, claim, Ending.WELL)
            over = True
            return Admitted(value)
        finally:
            _current.set(outer)
            if not over:  # a time limit or a shutdown between two steps: the lease may be ours, and still be renewed
                self._keeper.forget(str(claim.owner))
                self._end(Lease(claim.key, str(claim.owner), 0, claim.ttl), 0.0)

    def _acquire(self, claim: Claim) -> Holding | Refusal | Unanswered:
        asked_at = self._clock.monotonic()
        try:
            answer = self._store.acquire(
                claim.key, claim.owner, claim.ttl, heed_cooldown=claim.heed_cooldown, label=claim.label
            )
        except StoreError as error:
            return Unanswered(error)
        if isinstance(answer, Lease):
            return Holding(answer, self._clock, asked_at=asked_at, max_hold=claim.max_hold)
        return answer

    def _settle(self, holding: Holding, claim: Claim, ending: Ending) -> None:
        self._keeper.forget(holding.lease.owner)
        lease, cooldown = holding.lease, _length(claim.cooldown, ending)
        was_ours = self._end(lease, cooldown)
        if was_ours:
            self._notify((LeaseReleased if ending is Ending.WELL else LeaseAbandoned)(lease.key, lease.owner))
            if cooldown:
                self._notify(CooldownStarted(lease.key, lease.owner, cooldown))
        elif was_ours is False and not holding.known_lost and ending is not Ending.NEITHER:
            # After a retry or a replacement nobody lost anything: the next generation has taken over.
            self._notify(LeaseLost(lease.key, lease.owner, "gone"))
        elif was_ours is None and holding.lost and not holding.known_lost:
            self._notify(LeaseLost(lease.key, lease.owner, "unrenewed"))

    def _end(self, lease: Lease, cooldown: float) -> bool | None:
        """End a lease; None where the store does not answer: then the lease ends by itself, within its ttl."""
        try:
            return self._store.settle(lease, cooldown=cooldown)
        except StoreError as error:
            self._notify(StoreFailed(f"settling {lease.key}", str(error)))
            return None

    def _without_lease(
        self, claim: Claim, body: Callable[[], T], ending: Callable[[BaseException], Ending]
    ) -> Admitted[T] | Refusal | Unanswered:
        try:
            cooling = self._store.look(claim.key).cooling if claim.heed_cooldown else None
        except StoreError as error:
            return Unanswered(error)
        if cooling:
            return cooling
        try:
            value = body()
        except BaseException as error:
            self._cool(claim, ending(error))
            raise
        self._cool(claim, Ending.WELL)
        return Admitted(value)

    def _cool(self, claim: Claim, ending: Ending) -> None:
        cooldown = _length(claim.cooldown, ending)
        if not cooldown:
            return
        try:
            self._store.cool(claim.key, claim.owner, cooldown)
        except StoreError as error:
            self._notify(StoreFailed(f"cooling {claim.key}", str(error)))
        else:
            self._notify(CooldownStarted(claim.key, str(claim.owner), cooldown))


def _length(cooldown: Cooldown | None, ending: Ending) -> float:
    """The seconds of quiet that this ending earns; 0 for none."""
    if cooldown is None or ending is Ending.NEITHER:
        return 0.0
    return cooldown.after_success() if ending is Ending.WELL else cooldown.after_failure()
