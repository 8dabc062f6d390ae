"""The store port: what coordination needs of a store, in terms of leases.

The store decides, atomically; the process only decides how long to believe the answer. A store measures time by
its own clock, hands out a growing token with every lease, and acts for an owner only. It knows nothing of tasks.

Two stores implement it: `celery_coord.stores.memory.MemoryStore`, the reference, and
`celery_coord.stores.redis.RedisStore`. One suite judges both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from celery_coord.lease import Cooling, Done, Lease, Look, Owner, Refusal


class Store(Protocol):
    """A place that grants leases. Every method but `close` raises `StoreError` when the store does not answer."""

    def acquire(
        self, key: str, owner: Owner, ttl: float, *, heed_cooldown: bool, label: str = "", remember: float = 0.0
    ) -> Lease | Refusal | Done:
        """Grant the lease on a key, or say why not, in one atomic step.

        Idempotent: an owner that already holds the key is granted it again, since an answer may be lost on its way.
        A later generation of the run that holds the key takes over. A run that is remembered as ended, in this
        generation or a later one, is told so before all else. A quiet period that the run left itself does not refuse
        it: it failed, or else it would be remembered.

        Args:
            key: the name of what is guarded.
            owner: who asks.
            ttl: how long the lease lasts if it is not renewed, in seconds.
            heed_cooldown: whether a quiet period refuses the lease.
            label: who asks, in words, for those who meet the lease.
            remember: for how long it is remembered that the run was admitted, in seconds; 0: it is not.
        """
        ...

    def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """Let each lease last its ttl from now, in one round trip; False where it is no longer its owner's."""
        ...

    def settle(self, lease: Lease, *, cooldown: float = 0.0, remember: float = 0.0, told: bool = True) -> bool:
        """End a lease and begin a quiet period of so many seconds in the same atomic step; those who wait are woken.

        A quiet period that lasts longer stays. Idempotent. Returns False, and leaves the key alone, where the lease is
        no longer its owner's; the run is remembered all the same.

        Args:
            lease: what ends.
            cooldown: the quiet period, in seconds; 0 for none.
            remember: for how long the run is remembered as ended, in seconds; at least as long as the quiet period.
                0: it is not.
            told: what `Done` is to say of that end. One that was not told can be called told later.
        """
        ...

    def hold(self, lease: Lease, seconds: float, *, remember: float = 0.0) -> bool:
        """Keep the key for the next generation of the lease's run, without renewal; False where it is not its owner's.

        What is kept is nobody's to renew or to settle: a later generation takes it over, or it ends by itself.

        Args:
            lease: what ends.
            seconds: how long the key is kept at most.
            remember: as in `settle`.
        """
        ...

    def refuses(self, key: str, owner: Owner, *, heed_cooldown: bool) -> Cooling | Done | None:
        """What keeps a run away that takes no lease: its own end, or a quiet period; as `acquire` has it."""
        ...

    def cool(self, key: str, owner: Owner, seconds: float, *, remember: float = 0.0, told: bool = True) -> None:
        """Begin a quiet period without a lease; one that lasts longer stays.

        Args:
            key: the name of what is guarded.
            owner: whose run leaves it.
            seconds: how long it lasts; 0 for none: then the run is remembered, no more.
            remember: as in `settle`.
            told: as in `settle`.
        """
        ...

    def forget(self, key: str, owner: Owner) -> None:
        """Remember an owner's run as ended no more."""
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
