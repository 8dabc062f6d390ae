"""From the setting ``coord_url`` to a store.

The stores are imported here, and not when the first one is opened: a process that forks just then would leave its child
waiting for an import that nobody ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celery_coord.clock import Clock
from celery_coord.errors import ConfigurationError
from celery_coord.stores import Store
from celery_coord.stores.memory import MemoryStore
from celery_coord.stores.redis import RedisStore
from celery_coord.stores.redis.urls import SCHEMES as REDIS_SCHEMES

#: What may stand before ``://`` in ``coord_url``.
SCHEMES = (*REDIS_SCHEMES, "memory")


def open_store(
    url: str,
    *,
    namespace: str,
    timeout: float,
    clock: Clock,
    transport_options: Mapping[str, Any] | None = None,
    min_replicas: int = 0,
    max_connections: int = 10,
    on_recovered: Callable[[float, int], None] = lambda *_: None,
) -> Store:
    """The store that a URL names; nothing is sent to it yet.

    Args:
        url: as in the setting ``coord_url``.
        namespace: keeps applications that share a server apart.
        timeout: how long one answer may take, in seconds.
        clock: the time of a store in memory.
        transport_options: as in the setting of that name.
        min_replicas: how many replicas have to confirm what is written.
        max_connections: how many connections to a server the short acts of this process share.
        on_recovered: is told, when the store answers again, for how long it did not, in seconds, and how often.

    Raises:
        ConfigurationError: the URL is malformed or of an unknown scheme. The message does not repeat a password.
    """
    if _scheme(url) == "memory":
        return MemoryStore(clock)
    return RedisStore.from_url(
        url,
        timeout=timeout,
        transport_options=transport_options,
        namespace=namespace,
        min_replicas=min_replicas,
        max_connections=max_connections,
        on_recovered=on_recovered,
    )


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    example = "write coord_url = 'redis://127.0.0.1:6379/0'"
    if not separator:
        msg = f"coord_url is malformed, it has no scheme: {example}"
        raise ConfigurationError(msg)
    if scheme not in SCHEMES:
        msg = f"coord_url has the unknown scheme {scheme!r} (known: {', '.join(SCHEMES)}): {example}"
        raise ConfigurationError(msg)
    return scheme
