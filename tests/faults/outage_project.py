"""The application of `coord_project`, with tasks that say themselves what becomes of them while the store is away."""

from __future__ import annotations

from typing import Any

from coord_project import app, tell_all

from celery_coord import ExclusiveTask

__all__ = ["app"]


@app.task(base=ExclusiveTask, key="n:{n}", on_store_error="retry")
def patient(n: str) -> dict[str, Any]:
    return tell_all(n)


@app.task(base=ExclusiveTask, key="n:{n}", on_store_error="run")
def careless(n: str) -> dict[str, Any]:
    return tell_all(n)


@app.task(base=ExclusiveTask, key="n:{n}", on_store_error="fail")
def strict(n: str) -> dict[str, Any]:
    return tell_all(n)
