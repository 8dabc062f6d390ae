"""From the setting ``coord_url`` to a store.

The stores are imported here, and not when the first one is opened: a process that forks just then would leave its child
waiting for an import that nobody ends.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from celery_coord.clock import Clock
from celery_coord.errors import ConfigurationError
from celery_coord.stores import Store
from celery_coord.stores.memory import MemoryStore
from celery_coord.stores.redis import RedisStore

#: What may stand before ``://`` in ``coord_url``.
SCHEMES = ("redis", "rediss", "redis+socket", "unix", "memory")


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
        return MemoryStore(clock)
    return RedisStore.from_url(url, namespace=namespace, timeout=timeout)


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    example = "write coord_url = 'redis://127.0.0.1:6379/0'"
    if not separator:
        msg = f"coord_url is malformed, it has no scheme: {example}"
        raise ConfigurationError(msg)
    if scheme not in SCHEMES:
        msg = f"coord_url has the unknown scheme {scheme!r} (known: {', '.join(SCHEMES)}): {example}"
        raise ConfigurationError(msg)
    if scheme != "memory" and not _is_sound(scheme, url):
        # Not even masked: where a URL is malformed, the password may stand anywhere in it.
        form = "host[:port][/database]" if scheme in ("redis", "rediss") else "/path/to/socket"
        msg = f"coord_url is malformed, it is not {scheme}://[user:password@]{form} (quote what is special): {example}"
        raise ConfigurationError(msg)
    return scheme


def _is_sound(scheme: str, url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.fragment:
        return False
    if scheme in ("unix", "redis+socket"):
        return len(parts.path) > 1
    database = parts.path.strip("/")
    return bool(parts.hostname) and port != 0 and (not database or database.isdecimal())
