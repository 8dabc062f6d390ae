"""The store in memory: the reference that the others are judged by.

It serves one process: eager applications and tests. What it does is meant to be read.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from celery_coord.clock import Clock
from celery_coord.errors import ConfigurationError
from celery_coord.lease import Cooling, Held, Lease, Look, Owner, Refusal


@dataclass(slots=True)
class _Guard:
    """What is known of one key."""

    holder: str = ""
    token: int = 0
    label: str = ""
    held_until: float = 0.0
    settled_by: str = ""
    cooled_by: str = ""
    cool_until: float = 0.0


class MemoryStore:
    """Leases in a dict, under one lock.

    Args:
        clock: what leases and quiet periods are measured by.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._guards: dict[str, _Guard] = {}
        self._changed = threading.Condition()

    def acquire(self, key: str, owner: Owner, ttl: float, *, heed_cooldown: bool, label: str = "") -> Lease | Refusal:
        """See `celery_coord.stores.Store.acquire`."""
        with self._changed:
            look = self._look(key)
            if heed_cooldown and look.cooling:
                return look.cooling
            guard = self._guards.setdefault(key, _Guard())
            if look.held and guard.holder != str(owner):
                if not _supersedes(owner, guard.holder):
                    return look.held
                look = Look(key, None, None)
            if not look.held:
                guard.token = max(guard.token + 1, int(self._clock.time() * 1_000_000))
            guard.holder, guard.label = str(owner), label
            guard.held_until = self._clock.monotonic() + ttl
            return Lease(key, str(owner), guard.token, ttl)

    def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """See `celery_coord.stores.Store.renew`."""
        with self._changed:
            return [self._renew(lease) for lease in leases]

    def _renew(self, lease: Lease) -> bool:
        held = self._look(lease.key).held
        if held is None or held.holder != lease.owner:
            return False
        self._guards[lease.key].held_until = self._clock.monotonic() + lease.ttl
        return True

    def settle(self, lease: Lease, *, cooldown: float = 0.0) -> bool:
        """See `celery_coord.stores.Store.settle`."""
        with self._changed:
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

    def cool(self, key: str, owner: Owner, seconds: float) -> None:
        """See `celery_coord.stores.Store.cool`."""
        with self._changed:
            self._cool(key, str(owner), seconds)

    def _cool(self, key: str, owner: str, seconds: float) -> None:
        guard = self._guards.setdefault(key, _Guard())
        until = self._clock.monotonic() + seconds
        if until >= guard.cool_until:  # one that lasts longer stays
            guard.cooled_by, guard.cool_until = owner, until

    def clear(self, key: str) -> bool:
        """See `celery_coord.stores.Store.clear`."""
        with self._changed:
            was_cooling = self._look(key).cooling is not None
            if was_cooling:
                self._guards[key].cool_until = 0.0
            return was_cooling

    def look(self, key: str) -> Look:
        """See `celery_coord.stores.Store.look`."""
        with self._changed:
            return self._look(key)

    def _look(self, key: str) -> Look:
        guard, now = self._guards.get(key), self._clock.monotonic()
        if guard is None:
            return Look(key, None, None)
        held = guard.held_until > now
        cooling = guard.cool_until > now
        return Look(
            key,
            Held(key, guard.holder, guard.held_until - now, guard.token, guard.label) if held else None,
            Cooling(key, guard.cooled_by, guard.cool_until - now) if cooling else None,
        )

    def wait(self, key: str, timeout: float) -> None:  # noqa: ARG002  any change wakes any waiter: early is allowed
        """See `celery_coord.stores.Store.wait`."""
        with self._changed:
            self._changed.wait(timeout)

    def lock(self, key: str, ttl: float, label: str) -> NoReturn:  # noqa: ARG002  the port's signature
        """There is none: a `redis_lock.Lock` needs a Redis."""
        msg = "memory:// serves one process and has no lock for code outside it: set coord_url = 'redis://...'"
        raise ConfigurationError(msg)

    def check(self) -> None:
        """Memory is always there."""

    def close(self) -> None:
        """There is nothing to let go of."""


def _supersedes(owner: Owner, holder: str) -> bool:
    """Whether `owner` is a later generation of the run that `holder` is of."""
    held = Owner.parse(holder)
    return held is not None and held.run == owner.run and held.generation < owner.generation
