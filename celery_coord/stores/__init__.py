"""The store port: what coordination needs of a store, in terms of leases.

The store decides, atomically; the process only decides how long to believe the answer. A store measures time by
its own clock, hands out a growing token with every lease, and acts for an owner only. It knows nothing of tasks.

Two stores implement it: `celery_coord.stores.memory.MemoryStore`, the reference, and
`celery_coord.stores.redis.RedisStore`. One suite judges both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from celery_coord.clock import Clock
from celery_coord.errors import ConfigurationError
from celery_coord.lease import Lease, Look, Owner, Refusal

#: What may stand before ``://`` in ``coord_url``.
SCHEMES = ("redis", "rediss", "redis+socket", "unix", "memory")


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

        Idempotent. Returns False, and does nothing, where the lease is no longer its owner's.
        """
        ...

    def cool(self, key: str, owner: Owner, seconds: float) -> None:
        """Begin a quiet period without a lease."""
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


def open_store(url: str, *, namespace: str, timeout: float, clock: Clock) -> Store:
    """The store that a URL names; nothing is sent to it yet.

    Args:
        url: as in the setting ``coord_url``.
        namespace: keeps applications that share a server apart.
        timeout: how long one answer may take, in seconds.
        clock: the time of a store in memory.

    Raises:
        ConfigurationError: the URL is malformed or of an unknown scheme. The message does not repeat a password.
    """
    scheme = _scheme(url)
    if scheme == "memory":
        from celery_coord.stores.memory import MemoryStore  # noqa: PLC0415  a store is imported when it is used

        return MemoryStore(clock)
    from celery_coord.stores.redis import RedisStore  # noqa: PLC0415  likewise

    return RedisStore.from_url(url, namespace=namespace, timeout=timeout)


def masked(url: str) -> str:
    """A URL that can be shown: without user, password and query."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2].partition('?')[0]}" if separator else "(no scheme)"


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    example = "write coord_url = 'redis://127.0.0.1:6379/0'"
    if not separator:
        msg = f"coord_url is malformed, it has no scheme: {example}"
        raise ConfigurationError(msg)
    if scheme not in SCHEMES:
        msg = f"coord_url has the unknown scheme {scheme!r} (known: {', '.join(SCHEMES)}): {example}"
        raise ConfigurationError(msg)
    if scheme in ("redis", "rediss"):
        _check_address(url, example)
    return scheme


def _check_address(url: str, example: str) -> None:
    try:
        parts = urlsplit(url)
        database = parts.path.strip("/")
        sound = (
            bool(parts.hostname) and (parts.port is None or parts.port > 0) and (not database or database.isdecimal())
        )
    except ValueError:
        sound = False
    if not sound:
        msg = f"coord_url is malformed: {masked(url)} is not scheme://[user:password@]host[:port][/database]: {example}"
        raise ConfigurationError(msg)
