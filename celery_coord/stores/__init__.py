"""The store port: what coordination needs of a store, in terms of leases.

The store decides, atomically; the process only decides how long to believe the answer. A store measures time by
its own clock, hands out a growing token with every lease, and acts for an owner only. It knows nothing of tasks.

Two stores implement it: `celery_coord.stores.memory.MemoryStore`, the reference, and
`celery_coord.stores.redis.RedisStore`. One suite judges both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from celery_coord.lease import Lease, Look, Owner, Refusal


class Store(Protocol):
    """A place that grants leases. Every method but `close` raises `StoreError` when the store does not answer."""

    def acquire(self, key: str, owner: Owner, ttl: float, *, heed_cooldown: bool, label: str = "") -> Lease | Refusal:
        """Grant the lease on a key, or say why not, in one atomic step.

        Idempotent: an owner that already holds the key is granted it again, since an answer may be lost on its way.
        A later generation of the run that holds the key takes over.

        Args:
            key: the name of what is guarded.
            owner: who asks.
            ttl: how long the lease lasts if it is not renewed, in seconds.
            heed_cooldown: whether a quiet period refuses the lease.
            label: who asks, in words, for those who meet the lease.
        """
        ...

    def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """Let each lease last its ttl from now, in one round trip; False where it is no longer its owner's."""
        ...

    def settle(self, lease: Lease, *, cooldown: float = 0.0) -> bool:
        """End a lease and begin a quiet period of so many seconds in the same atomic step; those who wait are woken.

        A quiet period that lasts longer stays. Idempotent. Returns False, and does nothing, where the lease is no
        longer its owner's.
        """
        ...

    def cool(self, key: str, owner: Owner, seconds: float) -> None:
        """Begin a quiet period without a lease; one that lasts longer stays."""
        ...

    def clear(self, key: str) -> bool:
        """End a quiet period; False where there was none."""
        ...

    def look(self, key: str) -> Look:
        """Who holds the key and whether it is cooling, at one instant."""
        ...

    def wait(self, key: str, timeout: float) -> None:
        """Sleep until the key's lease is settled, or for so many seconds; may return early."""
        ...

    def lock(self, key: str, ttl: float, label: str) -> Any:
        """The same lock as a `redis_lock.Lock`, for code outside Celery.

        Raises:
            ConfigurationError: this store has none.
        """
        ...

    def check(self) -> None:
        """Make sure that the store can be used.

        Raises:
            ConfigurationError: it refuses us, or is too old.
            StoreError: it does not answer now.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
