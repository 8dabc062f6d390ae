"""A client that is bounded in time, made from a URL.

redis-py's own defaults try for up to a minute; a task that waits to be admitted should not.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from celery_coord.errors import ConfigurationError

#: redis-py 8 bounds a pool by 100; a worker with more threads would leave no connection to the keeper.
_NO_BOUND = 2**31


def client_from(url: str, *, timeout: float) -> redis.Redis:
    """A client of one server; it connects when it is first used.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://`` or Celery's ``redis+socket://``.
        timeout: the longest wait for a connection and for an answer, in seconds.

    Raises:
        ConfigurationError: redis-py refuses the URL.
    """
    options: dict[str, Any] = {
        "decode_responses": True,
        "encoding_errors": "replace",
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "max_connections": _NO_BOUND,
        "retry": Retry(NoBackoff(), 0),  # `Lines` asks once more, and the keeper tries again
    }
    try:
        client = redis.Redis.from_url(_for_redis_py(url), **options)
        pool = client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # connects to nothing, and refuses what it does not know
    except (ValueError, TypeError, RedisError) as error:
        msg = (
            f"coord_url has an option that redis-py does not take ({type(error).__name__}): "
            "write coord_url = 'redis://127.0.0.1:6379/0'"
        )
        raise ConfigurationError(msg) from None
    return client


def _for_redis_py(url: str) -> str:
    """Celery's spellings of a URL, in redis-py's."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "redis+socket":
        parts = parts._replace(scheme="unix")
        query["db"] = query.pop("virtual_host", query.get("db", "0"))
    certificates = query.get("ssl_cert_reqs", "")
    if certificates.startswith("CERT_"):
        query["ssl_cert_reqs"] = certificates.removeprefix("CERT_").lower()
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(query)}"  # urlunsplit drops // before a bare path
