"""Results that a test waits for are seen, also where Celery's subscription misses one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import redis
from celery.backends.redis import RedisBackend


def miss_no_result(app: Any) -> None:
    """Let `result.get()` look again once a second.

    Celery subscribes to a result on one connection and looks for it on another. A busy server may do the second first:
    a result that comes in between is never heard of, and who waits for it waits in vain.

    Args:
        app: whose results this thread waits for.
    """
    backend = app.backend
    if not isinstance(backend, RedisBackend):
        return
    consumer = backend.result_consumer
    drain_events = consumer.drain_events

    def drain_and_look(timeout: float | None = None) -> None:
        drain_events(timeout=timeout)
        awaited = list(consumer.subscribed_to)
        with suppress(redis.RedisError):  # where it is away there is nothing to see
            for meta in filter(None, backend.client.mget(awaited) if awaited else []):
                consumer.on_state_change(consumer._decode_result(meta), None)

    consumer.drain_events = drain_and_look
