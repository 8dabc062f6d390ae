"""A worker makes sure, as it starts, that what its tasks ask for can be had."""

from __future__ import annotations

from typing import Any, NoReturn

from celery import bootsteps
from celery.utils.log import get_logger

from celery_coord.app import Coordination, coordination
from celery_coord.errors import ConfigurationError, StoreError
from celery_coord.events import StoreFailed

logger = get_logger(__name__)


class CheckStep(bootsteps.Step):  # type: ignore[misc]  # Celery has no types
    """Refuses to start a worker whose configuration cannot work; one whose store is away starts, and says so."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        check(parent.app)
        coordinated = coordination(parent.app)
        coordinated.has_children = _forks(parent.pool_cls)
        if coordinated.settings.url.startswith("memory://") and coordinated.has_children:
            refuse("memory:// serves one process, and this worker has children: set coord_url = 'redis://...'")


def check(app: Any) -> None:
    """Make sure that an application can coordinate.

    Raises:
        SystemExit: it cannot, and waiting will not help; with one sentence that says why.
    """
    try:
        _check(coordination(app))
    except ConfigurationError as error:
        refuse(str(error))


def _check(coordinated: Coordination) -> None:
    try:
        coordinated.store.check()
    except StoreError as error:
        coordinated.notify(StoreFailed("starting", str(error)))
    finally:
        coordinated.store.close()  # children are forked from here, and must find no connection


def warn_of_memory(app: Any, what: str) -> None:
    """A store in memory is this process's alone: there is no other to follow."""
    if coordination(app).settings.url.startswith("memory://"):
        logger.warning("memory:// serves one process: %s; set coord_url = 'redis://...' for one of many", what)


def refuse(why: str) -> NoReturn:
    """End the process, with a sentence instead of a traceback."""
    raise SystemExit(f"celery_coord: {why}")


def _forks(pool_cls: Any) -> bool:
    return str(getattr(pool_cls, "__module__", "")) == "celery.concurrency.prefork"
