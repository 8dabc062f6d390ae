"""A pool that a user has made of prefork's."""

from __future__ import annotations

from celery.concurrency.prefork import TaskPool


class OwnPool(TaskPool):  # type: ignore[misc]  # Celery has no types
    """With children, as that one."""
