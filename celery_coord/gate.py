"""The gate: a run is admitted, runs, and settles.

    acquire ──refused──▶ Held | Cooling          a value; the body never starts, nothing of the holder's is touched
       │
     leased ──▶ the keeper renews ──▶ body ──┬─ ended well ──▶ release  + quiet period     one atomic step,
                                             ├─ failed ──────▶ abandon  + quiet period     and only if the
                                             ├─ passed on ───▶ abandon, or hold            lease is still ours
                                             └─ neither ─────▶ abandon

*Passed on* is a run that has published its own next generation, by a retry or a replacement. A run that ended well, or
was passed on, is remembered as done in the same step, so that its message, delivered once more, finds that out.

One round trip to be admitted, one to settle. A run that takes no lease (a quiet period alone) looks before it runs,
and begins the period when it has ended.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Generic, TypeVar, overload

from celery_coord import interrupt
from celery_coord.clock import Clock
from celery_coord.errors import NewerLayout, NoLease, StoreError
from celery_coord.events import (
    CooldownStarted,
    Event,
    LeaseAbandoned,
    LeaseAcquired,
    LeaseKept,
    LeaseLost,
    LeaseOutlived,
    LeaseReleased,
    StoreFailed,
)
from celery_coord.lease import Done, Held, Lease, Owner, Refusal
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


class Kind(Enum):
    """How a body ended."""

    WELL = auto()
    FAILED = auto()
    PASSED_ON = auto()
    NEITHER = auto()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a body ended, and what is to be kept of it.

    Attributes:
        kind: how it ended.
        remember: for how long it is remembered as done, in seconds; 0: it is not.
        told: whether nobody needs to be told of that end any more.
        hold: for how long the key is kept for the next generation, in seconds; 0: it is not.
    """

    kind: Kind
    remember: float = 0.0
    told: bool = True
    hold: float = 0.0

    def after(self, seconds: float) -> Ending:
        """What is left to be kept of it when so many seconds have passed since."""
        return replace(self, remember=_left(self.remember, seconds), hold=_left(self.hold, seconds))


#: What a run makes of the exception that its body raised, or of None.
Judge = Callable[[BaseException | None], Ending]


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
        remember: for how long it is remembered that the run was admitted, in seconds.
        raise_on_loss: whether the loss of the lease interrupts the body, where that is possible.
    """

    key: str
    owner: Owner
    label: str = ""
    ttl: float = 0.0
    max_hold: float = 0.0
    cooldown: Cooldown | None = None
    heed_cooldown: bool = False
    remember: float = 0.0
    raise_on_loss: bool = False


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
        #: The owners of this process that a lease may be granted to though nobody runs as them; until when, each.
        self._disowned: dict[str, float] = {}

    def admit(self, claim: Claim, body: Callable[[], T], judge: Judge) -> Admitted[T] | Refusal | Done | Unanswered:
        """Run a body, if its key is to be had.

        Args:
            claim: what the run asks for.
            body: what runs.
            judge: says what its end means.

        Returns:
            The body's value as `Admitted`, or why it did not start.

        Raises:
            BaseException: what the body raised, after it was settled.
        """
        return self._with_lease(claim, body, judge) if claim.ttl else self._without_lease(claim, body, judge)

    def abandon(self, key: str, owner: Owner) -> None:
        """Abandon the lease of a run whose process has died, if it still holds it.

        Raises:
            StoreError: the store does not answer: then the lease ends by itself, within its ttl.
        """
        held = self._store.look(key).held
        if held is not None and held.holder == str(owner) and self._store.settle(Lease(key, str(owner), 0, 0.0)):
            self._notify(LeaseAbandoned(key, str(owner)))

    def _with_lease(
        self, claim: Claim, body: Callable[[], T], judge: Judge
    ) -> Admitted[T] | Refusal | Done | Unanswered:
        over, outer, holding = False, _current.get(), None
        try:
            try:
                holding = self._acquire(claim)
            except Exception:  # a time limit: then there is no time to wait for the store, not even to give back
                self._disown(claim)
                over = True
                raise
            if not isinstance(holding, Holding):
                over = True
                return holding
            try:
                self._keeper.watch(holding)
                self._notify(LeaseAcquired(claim.key, holding.lease.owner, holding.token))
                _current.set(holding)
                value = _run(body, holding if claim.raise_on_loss and interrupt.is_possible() else None)
                _current.set(outer)
            except BaseException as error:
                _current.set(outer)
                self._settle(holding, claim, judge(error))
                over = True
                raise
            self._settle(holding, claim, judge(None))
            over = True
            return Admitted(value)
        finally:
            _current.set(outer)
            if not over:  # a time limit or a shutdown between two steps: the lease may be ours, and still be renewed
                if isinstance(holding, Holding):
                    holding.ended = True
                self._keeper.forget(str(claim.owner))
                self._end(Lease(claim.key, str(claim.owner), 0, claim.ttl), Ending(Kind.NEITHER), 0.0)

    def _acquire(self, claim: Claim) -> Holding | Refusal | Done | Unanswered:
        asked_at = self._clock.monotonic()
        try:
            answer = self._ask(claim)
            if isinstance(answer, Held) and answer.holder in self._disowned:  # it is not to keep anybody away
                self._give_back(claim.key, answer.holder)
                asked_at = self._clock.monotonic()
                answer = self._ask(claim)
        except NewerLayout as error:
            return Unanswered(error)
        except StoreError as error:
            self._disown(claim)
            return Unanswered(error)
        if isinstance(answer, Lease):
            return Holding(answer, self._clock, asked_at=asked_at, max_hold=claim.max_hold)
        return answer

    def _ask(self, claim: Claim) -> Lease | Refusal | Done:
        return self._store.acquire(
            claim.key,
            claim.owner,
            claim.ttl,
            heed_cooldown=claim.heed_cooldown,
            label=claim.label,
            remember=claim.remember,
        )

    def _disown(self, claim: Claim) -> None:
        """A request that nobody answered may be granted all the same, as soon as the store is back: to nobody, then."""
        now = self._clock.monotonic()
        until = now + 2 * claim.ttl
        for owner, end in list(self._disowned.items()):
            if end <= now:
                self._disowned.pop(owner, None)
        self._disowned[str(claim.owner)] = until
        was_answered = False

        def give_back() -> bool:
            nonlocal was_answered
            if was_answered:  # twice: what waited for the store longer than we did may come after us
                self.abandon(claim.key, claim.owner)
                return True
            self._give_back(claim.key, str(claim.owner))
            was_answered = True
            return False

        self._keeper.do_later(give_back, until=until, at_once=True, awaited=False)

    def _give_back(self, key: str, owner: str) -> None:
        """End a lease that nobody runs under, without a look at it: a store that stalls finds both requests."""
        if self._store.settle(Lease(key, owner, 0, 0.0)):
            self._notify(LeaseAbandoned(key, owner))

    def _settle(self, holding: Holding, claim: Claim, ending: Ending) -> None:
        holding.ended = True
        self._keeper.forget(holding.lease.owner)
        lease, lost = holding.lease, holding.lost
        was_ours = self._end(lease, ending, 0.0 if lost else _length(claim.cooldown, ending))
        # After a retry or a replacement nobody lost anything: the next generation has taken over.
        is_gone = was_ours is False and ending.kind in (Kind.WELL, Kind.FAILED)
        if (lost or is_gone) and not holding.known_lost:
            self._notify(LeaseLost(lease.key, lease.owner, "gone" if is_gone else holding.why_lost))
        if (lost or is_gone) and ending.kind is Kind.WELL:
            self._notify(LeaseOutlived(lease.key, lease.owner, lease.token))

    def _end(self, lease: Lease, ending: Ending, cooldown: float) -> bool | None:
        """End a lease; None where the store does not answer: then as soon as it does, or by itself, within its ttl."""
        ended_at = self._clock.monotonic()
        try:
            return self._end_now(lease, ending, cooldown)
        except StoreError as error:
            self._notify(StoreFailed(f"settling {lease.key}", str(error)))

            def end_it() -> bool:
                since = self._clock.monotonic() - ended_at
                self._end_now(lease, ending.after(since), _left(cooldown, since))
                return True

            self._keeper.do_later(
                end_it,
                until=self._clock.monotonic() + max(lease.ttl, ending.remember),
                awaited=ending.kind is not Kind.NEITHER,
            )
            return None

    def _end_now(self, lease: Lease, ending: Ending, cooldown: float) -> bool:
        if ending.hold:
            was_ours = self._store.hold(lease, ending.hold, remember=ending.remember)
            if was_ours:
                self._notify(LeaseKept(lease.key, lease.owner, ending.hold))
            return was_ours
        was_ours = self._store.settle(lease, cooldown=cooldown, remember=ending.remember, told=ending.told)
        if was_ours:
            self._notify((LeaseReleased if ending.kind is Kind.WELL else LeaseAbandoned)(lease.key, lease.owner))
            if cooldown:
                self._notify(CooldownStarted(lease.key, lease.owner, cooldown))
        return was_ours

    def _without_lease(
        self, claim: Claim, body: Callable[[], T], judge: Judge
    ) -> Admitted[T] | Refusal | Done | Unanswered:
        try:
            refused = self._store.refuses(claim.key, claim.owner, heed_cooldown=claim.heed_cooldown)
        except StoreError as error:
            return Unanswered(error)
        if refused:
            return refused
        try:
            value = body()
        except BaseException as error:
            self._cool(claim, judge(error))
            raise
        self._cool(claim, judge(None))
        return Admitted(value)

    def _cool(self, claim: Claim, ending: Ending) -> None:
        cooldown = _length(claim.cooldown, ending)
        if not (cooldown or ending.remember):
            return

        ended_at = self._clock.monotonic()

        def cool() -> bool:
            since = self._clock.monotonic() - ended_at
            quiet, left = _left(cooldown, since), ending.after(since)
            self._store.cool(claim.key, claim.owner, quiet, remember=left.remember, told=left.told)
            if quiet:
                self._notify(CooldownStarted(claim.key, str(claim.owner), quiet))
            return True

        try:
            cool()
        except StoreError as error:
            self._notify(StoreFailed(f"cooling {claim.key}", str(error)))
            self._keeper.do_later(cool, until=self._clock.monotonic() + max(cooldown, ending.remember))


def _run(body: Callable[[], T], interruptible: Holding | None) -> T:
    if interruptible is None:
        return body()
    with interrupt.Interrupt(interruptible):
        return body()


def _left(seconds: float, since: float) -> float:
    return max(0.0, seconds - since)


def _length(cooldown: Cooldown | None, ending: Ending) -> float:
    """The seconds of quiet that this ending earns; 0 for none."""
    if cooldown is None:
        return 0.0
    match ending.kind:
        case Kind.WELL:
            return cooldown.after_success()
        case Kind.FAILED:
            return cooldown.after_failure()
    return 0.0
