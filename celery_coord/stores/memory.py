"""The store in memory: the reference that the others are judged by.

It serves one process: eager applications and tests. What it does is meant to be read.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

from celery_coord.clock import Clock
from celery_coord.errors import ConfigurationError, StoreError
from celery_coord.lease import (
    Cooling,
    Done,
    Held,
    Lease,
    Look,
    Owner,
    Recorded,
    Refusal,
    kept_for_next,
    run_and_generation,
)


@dataclass(slots=True)
class _Guard:
    """What is known of one key."""

    holder: str = ""
    token: int = 0
    label: str = ""
    ttl: float = 0.0
    held_until: float = 0.0
    settled_by: str = ""
    cooled_by: str = ""
    cool_until: float = 0.0


_NOT_YET = -1


@dataclass(frozen=True, slots=True)
class _Ended:
    """A run that was admitted, as long as it is remembered; its generation is `_NOT_YET` where no end is known."""

    generation: int
    ended_at: float
    until: float
    told: bool


class MemoryStore:
    """Leases in a dict, under one lock.

    Args:
        clock: what leases and quiet periods are measured by.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._guards: dict[str, _Guard] = {}
        self._ended: dict[tuple[str, str], _Ended] = {}
        self._sweep_at = 100
        self._records: dict[str, dict[str, str]] = {}
        self._requests: dict[str, tuple[str, float]] = {}
        # Entered as it is, in one step, since a signal may raise anywhere.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)

    def acquire(
        self, key: str, owner: Owner, ttl: float, *, heed_cooldown: bool, label: str = "", remember: float = 0.0
    ) -> Lease | Refusal | Done:
        """See `celery_coord.stores.Store.acquire`."""
        with self._lock:
            refused = self._refuses(key, owner, heed_cooldown=heed_cooldown)
            if refused:
                return refused
            held = self._look(key).held
            guard = self._guards.setdefault(key, _Guard())
            again = held is not None and held.holder == str(owner)
            if held and not again and not _supersedes(owner, held.holder):
                return replace(held, begun=self._has_begun(key, owner))
            if remember and not self._has_begun(key, owner):
                self._remember_as(key, owner.run, _Ended(_NOT_YET, 0.0, self._clock.monotonic() + remember, told=False))
            self._keep(key, owner.run, remember)
            if not again:
                guard.token = max(guard.token + 1, int(self._clock.time() * 1_000_000))
            guard.holder, guard.label, guard.ttl = str(owner), label, ttl
            guard.held_until = self._clock.monotonic() + ttl
            return Lease(key, str(owner), guard.token, ttl, remember)

    def refuses(self, key: str, owner: Owner, *, heed_cooldown: bool) -> Cooling | Done | None:
        """See `celery_coord.stores.Store.refuses`."""
        with self._lock:
            return self._refuses(key, owner, heed_cooldown=heed_cooldown)

    def _refuses(self, key: str, owner: Owner, *, heed_cooldown: bool) -> Cooling | Done | None:
        now, ended = self._clock.monotonic(), self._ended.get((key, owner.run))
        if ended and ended.until > now and ended.generation >= owner.generation:
            return Done(key, now - ended.ended_at, ended.told)
        cooling = self._look(key).cooling if heed_cooldown else None
        if cooling is None:
            return None
        cooled_by = Owner.parse(cooling.holder)
        return None if cooled_by and cooled_by.run == owner.run else cooling

    def renew(self, leases: Sequence[Lease]) -> list[bool | StoreError]:
        """See `celery_coord.stores.Store.renew`."""
        with self._lock:
            return [self._renew(lease) for lease in leases]

    def _renew(self, lease: Lease) -> bool:
        held = self._look(lease.key).held
        if held is None or held.holder != lease.owner:
            return False
        self._guards[lease.key].held_until = self._clock.monotonic() + lease.ttl
        run, _ = run_and_generation(lease.owner)
        self._keep(lease.key, run, lease.remember)
        return True

    def _keep(self, key: str, run: str, remember: float) -> None:
        """What is known of a run is known for so long from now, at the least."""
        known, now = self._ended.get((key, run)), self._clock.monotonic()
        if known is not None and known.until > now:
            self._ended[key, run] = replace(known, until=max(known.until, now + remember))

    def settle(
        self,
        lease: Lease,
        *,
        cooldown: float = 0.0,
        remember: float = 0.0,
        told: bool = True,
        wake: int = 1,  # noqa: ARG002  all are woken
    ) -> bool:
        """See `celery_coord.stores.Store.settle`."""
        with self._lock:
            self._remember(lease.key, lease.owner, max(remember, cooldown) if remember else 0.0, told=told)
            held = self._look(lease.key).held
            if held is None or held.holder != lease.owner:
                guard = self._guards.get(lease.key)
                return held is None and guard is not None and guard.settled_by == lease.owner
            guard = self._guards[lease.key]
            guard.held_until = 0.0
            guard.settled_by = lease.owner
            if cooldown:
                self._cool(lease.key, lease.owner, cooldown)
            self._changed.notify_all()
            return True

    def hold(self, lease: Lease, seconds: float, *, remember: float = 0.0) -> bool:
        """See `celery_coord.stores.Store.hold`."""
        with self._lock:
            self._remember(lease.key, lease.owner, remember, told=True)
            held, heir = self._look(lease.key).held, kept_for_next(lease.owner)
            if held is None or held.holder not in (lease.owner, heir):
                return False
            guard = self._guards[lease.key]
            if held.holder == heir:  # kept once is kept
                return True
            guard.holder = heir
            guard.held_until = self._clock.monotonic() + seconds
            return True

    def cool(self, key: str, owner: Owner, seconds: float, *, remember: float = 0.0, told: bool = True) -> None:
        """See `celery_coord.stores.Store.cool`."""
        with self._lock:
            self._remember(key, str(owner), max(remember, seconds) if remember else 0.0, told=told)
            if seconds:
                self._cool(key, str(owner), seconds)

    def _cool(self, key: str, owner: str, seconds: float) -> None:
        guard = self._guards.setdefault(key, _Guard())
        until = self._clock.monotonic() + seconds
        if until >= guard.cool_until:  # one that lasts longer stays
            guard.cooled_by, guard.cool_until = owner, until

    def _remember(self, key: str, owner: str, seconds: float, *, told: bool) -> None:
        ended = Owner.parse(owner)
        if not seconds or ended is None:
            return
        now = self._clock.monotonic()
        before = self._ended.get((key, ended.run))
        if before is None or before.until <= now or before.generation < ended.generation:
            self._remember_as(key, ended.run, _Ended(ended.generation, now, now + seconds, told))
        elif before.generation == ended.generation and told:
            self._ended[key, ended.run] = replace(before, told=True)

    def _remember_as(self, key: str, run: str, known: _Ended) -> None:
        """And drop what is remembered no more, each time that there is twice as much as was left the last time."""
        if len(self._ended) >= self._sweep_at:
            now = self._clock.monotonic()
            self._ended = {name: known for name, known in self._ended.items() if known.until > now}
            self._sweep_at = 2 * len(self._ended) + 100
        self._ended[key, run] = known

    def _has_begun(self, key: str, owner: Owner) -> bool:
        known = self._ended.get((key, owner.run))
        return known is not None and known.until > self._clock.monotonic()

    def forget(self, key: str, owner: Owner) -> None:
        """See `celery_coord.stores.Store.forget`."""
        with self._lock:
            self._ended.pop((key, owner.run), None)

    def clear(self, key: str) -> bool:
        """See `celery_coord.stores.Store.clear`."""
        with self._lock:
            was_cooling = self._look(key).cooling is not None
            if was_cooling:
                self._guards[key].cool_until = 0.0
            return was_cooling

    def look(self, key: str) -> Look:
        """See `celery_coord.stores.Store.look`."""
        with self._lock:
            return self._look(key)

    def _look(self, key: str) -> Look:
        guard, now = self._guards.get(key), self._clock.monotonic()
        if guard is None:
            return Look(key, None, None)
        held = guard.held_until > now
        cooling = guard.cool_until > now
        return Look(
            key,
            Held(key, guard.holder, guard.held_until - now, guard.token, guard.label, guard.ttl) if held else None,
            Cooling(key, guard.cooled_by, guard.cool_until - now) if cooling else None,
        )

    def record(
        self,
        lease: Lease,
        name: str,
        value: str,
        *,
        was: str | None = None,
        by_holder: bool = True,
        within: float | None = None,  # noqa: ARG002  it is reached at once
    ) -> Recorded:
        """See `celery_coord.stores.Store.record`."""
        with self._lock:
            facts = self._records.setdefault(lease.key, {})
            current = facts.get(name, "")
            if current == value:
                return Recorded(by_us=True, lost=False, value=value)
            if by_holder and not self._is_holder(lease):
                return Recorded(by_us=False, lost=True, value=value)
            if was is not None and current != was:
                return Recorded(by_us=False, lost=False, value=current)
            if value:
                facts[name] = value
            else:
                del facts[name]  # there is something else, or it would have been recorded already
            return Recorded(by_us=True, lost=False, value=value)

    def records(self, key: str) -> dict[str, str]:
        """See `celery_coord.stores.Store.records`."""
        with self._lock:
            return dict(self._records.get(key, {}))

    def erase(self, lease: Lease, names: Sequence[str]) -> bool:
        """See `celery_coord.stores.Store.erase`."""
        with self._lock:
            if not self._is_holder(lease):
                return False
            for name in names:
                self._records.get(lease.key, {}).pop(name, None)
            return True

    def _is_holder(self, lease: Lease) -> bool:
        held = self._look(lease.key).held
        return held is not None and held.holder == lease.owner

    def ask(self, key: str, request: str, seconds: float) -> None:
        """See `celery_coord.stores.Store.ask`."""
        with self._lock:
            self._requests[key] = request, self._clock.monotonic() + seconds

    def request(self, key: str) -> str:
        """See `celery_coord.stores.Store.request`."""
        with self._lock:
            request, until = self._requests.get(key, ("", 0.0))
            return request if until > self._clock.monotonic() else ""

    def keys(self, prefix: str) -> list[str]:
        """See `celery_coord.stores.Store.keys`."""
        with self._lock:
            return sorted(key for key, guard in self._guards.items() if guard.token and key.startswith(prefix))

    def wait(self, key: str, timeout: float) -> None:  # noqa: ARG002  any change wakes any waiter: early is allowed
        """See `celery_coord.stores.Store.wait`."""
        with self._lock:
            self._changed.wait(timeout)

    def lock(self, key: str, ttl: float, label: str) -> NoReturn:  # noqa: ARG002  the port's signature
        """There is none: a `redis_lock.Lock` needs a Redis."""
        msg = "memory:// serves one process and has no lock for code outside it: set coord_url = 'redis://...'"
        raise ConfigurationError(msg)

    def check(self) -> list[str]:
        """Memory is always there."""
        return []

    def close(self) -> None:
        """There is nothing to let go of."""


def _supersedes(owner: Owner, holder: str) -> bool:
    """Whether `owner` is a later generation of the run that `holder` is of."""
    held = Owner.parse(holder)
    return held is not None and held.run == owner.run and held.generation < owner.generation
