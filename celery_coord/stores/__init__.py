"""The store port: what coordination needs of a store, in terms of leases.

The store decides, atomically; the process only decides how long to believe the answer. A store measures time by
its own clock, hands out a growing token with every lease, and acts for an owner only. It knows nothing of tasks.

Two stores implement it: `celery_coord.stores.memory.MemoryStore`, the reference, and
`celery_coord.stores.redis.RedisStore`. One suite judges both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from celery_coord.errors import StoreError
from celery_coord.lease import Cooling, Done, Lease, Look, Owner, Recorded, Refusal


class Store(Protocol):
    """A place that grants leases.

    Every method but `renew` and `close` raises `StoreError` when the store does not answer.
    """

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

    def renew(self, leases: Sequence[Lease]) -> list[bool | StoreError]:
        """Let each lease last its ttl from now, in one round trip to each server.

        Its run is remembered as begun for `Lease.remember` from now, at the least.

        Returns:
            For each, whether it is still its owner's; or the error, where the server that has it did not answer. That
            takes no other lease with it, and so nothing is raised.
        """
        ...

    def settle(
        self, lease: Lease, *, cooldown: float = 0.0, remember: float = 0.0, told: bool = True, wake: int = 1
    ) -> bool:
        """End a lease and begin a quiet period of so many seconds in the same atomic step; those who wait are woken.

        A quiet period that lasts longer stays. Idempotent. Returns False, and leaves the key alone, where the lease is
        no longer its owner's; the run is remembered all the same.

        Args:
            lease: what ends.
            cooldown: the quiet period, in seconds; 0 for none.
            remember: for how long the run is remembered as ended, in seconds; at least as long as the quiet period.
                0: it is not.
            told: what `Done` is to say of that end. One that was not told can be called told later.
            wake: how many of those who wait are woken at most; one that is woken may be dead.
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

    def record(
        self,
        lease: Lease,
        name: str,
        value: str,
        *,
        was: str | None = None,
        by_holder: bool = True,
        within: float | None = None,
    ) -> Recorded:
        """Write down a fact about what is led, in one atomic step, for the holder of the lease alone.

        It outlives the lease: the next holder reads it. Idempotent: what stands there already is recorded.

        Args:
            lease: the writer's.
            name: of the fact.
            value: the fact; empty: it is erased.
            was: what must stand there for that, as the writer knows it; empty: nothing. None: anything may.
            by_holder: whether the lease must still be the writer's. One that was may take its own words back.
            within: what reaches the store later than so many seconds from now is not written: nobody waits for it any
                more.
                None: it is, whenever.
        """
        ...

    def records(self, key: str) -> dict[str, str]:
        """All facts that the holders of a key wrote down."""
        ...

    def erase(self, lease: Lease, names: Sequence[str]) -> bool:
        """Erase facts, in one round trip; False where the lease is no longer its owner's: those then stay."""
        ...

    def ask(self, key: str, request: str, seconds: float) -> None:
        """Leave a request for the holder of a key, for so many seconds; the last one counts. Anybody may."""
        ...

    def request(self, key: str) -> str:
        """The request that was left for the holder of a key; empty: none."""
        ...

    def keys(self, prefix: str) -> list[str]:
        """The keys with this beginning that are held, or were within a day. Slow: for operators."""
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

    def check(self) -> list[str]:
        """Make sure that the store can be used.

        Returns:
            What is not as it should be, and does not keep it from being used; in words.

        Raises:
            ConfigurationError: it refuses us, or is too old.
            StoreError: it does not answer now.
        """
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...
