"""Stores that are closed when the test is over."""

from __future__ import annotations

from collections.abc import Callable

from celery_coord.stores.redis import RedisStore

#: Returns the store that it is given, and closes it later.
Kept = Callable[[RedisStore], RedisStore]
