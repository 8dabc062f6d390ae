"""The application of the other tests, as a worker of a version with the made-up next layout runs it."""

from __future__ import annotations

from typing import Any

import next_layout
from coord_project import *  # noqa: F403  its tasks, its settings, its signals

import celery_coord.app


def open_next(url: str, *, clock: object, **options: Any) -> next_layout.NextStore:
    store = next_layout.NextStore.from_url(url, **options)
    assert isinstance(store, next_layout.NextStore)
    return store


celery_coord.app.open_store = open_next  # type: ignore[assignment]
