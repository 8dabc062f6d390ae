"""What a worker does as it starts and as it ends.

As it starts it makes sure that what its tasks ask for can be had. A process of it that ends while the store is away
waits a little for the store to hear of the bodies that have ended there: a child that has had its tasks, or its
memory, and a worker that is asked to stop.
"""

from __future__ import annotations

from typing import Any, NoReturn

import celery
from celery import bootsteps, signals
from celery.utils.log import get_logger

from celery_coord.app import Coordination, coordination
from celery_coord.errors import ConfigurationError, StoreError
from celery_coord.events import StoreFailed
from celery_coord.renewal import finish

logger = get_logger(__name__)

#: A process that ends waits for so many seconds at most: a child keeps its place in the pool for as long.
FINISH_WITHIN = 5.0
#: Connections to a Redis that kombu needs beside those by which greenlets acknowledge: to file what it has taken, to
#: give back what was not acknowledged; and some to spare.
_KOMBUS_OWN = 5
#: How long one act may take, in answers (`coord_store_timeout`); and the names of tasks in one line of the log.
_ANSWERS_PER_ACT = 3
_NAMES_AT_MOST = 3


class CheckStep(bootsteps.Step):  # type: ignore[misc]  # Celery has no types
    """Refuses to start a worker whose configuration cannot work; one whose store is away starts, and says so."""

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        check(parent.app)
        coordinated = coordination(parent.app)
        coordinated.has_children = _is_made_of(parent.pool_cls, "prefork")
        if coordinated.settings.url.startswith("memory://") and coordinated.has_children:
            refuse("memory:// serves one process, and this worker has children: set coord_url = 'redis://...'")

    def create(self, parent: Any) -> None:
        """Warn of what Celery does not; by now the worker knows how much it does at once."""
        # An older Celery has one greenlet acknowledge for all of them.
        if getattr(parent.pool_cls, "is_green", False) and celery.VERSION >= (5, 7):
            _warn_of_few_connections(parent.app, parent.max_concurrency or parent.concurrency)
        has_soft_limits = _is_made_of(parent.pool_cls, "prefork")
        if has_soft_limits or _is_made_of(parent.pool_cls, "gevent"):  # the other pools know no limits at all
            _warn_of_short_limits(parent, has_soft_limits=has_soft_limits)


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
        for doubt in coordinated.store.check():
            logger.warning("%s", doubt)
    except StoreError as error:
        coordinated.notify(StoreFailed("starting", str(error)))
    finally:
        coordinated.store.close()  # children are forked from here, and must find no connection


def _warn_of_few_connections(app: Any, greenlets: int) -> None:
    """Each greenlet acknowledges by a connection of its own, and what kombu has taken is lost where it has none left.

    Runs that were sent again while the store was away make that likely: many are due at the same time.
    """
    with app.connection_for_read() as broker:
        if broker.get_transport_cls().driver_type != "redis":
            return
        most = broker.transport_options.get("max_connections", broker.transport.Channel.max_connections)
        if isinstance(most, int) and 0 < most < greenlets + _KOMBUS_OWN:
            logger.warning(
                "up to %d greenlets acknowledge at the same time, and kombu has %d connections for that: "
                "where they run out, messages are lost or no more are taken; set broker_transport_options = "
                "{'max_connections': %d}, or start fewer greenlets",
                greenlets,
                most,
                greenlets + _KOMBUS_OWN,
            )


def _warn_of_short_limits(worker: Any, *, has_soft_limits: bool) -> None:
    """A hard time limit ends a run also while that asks a store that does not answer: then nobody tries it again.

    Where a soft one comes first the run is put off, and so there is nothing to say.
    """
    longest = _ANSWERS_PER_ACT * coordination(worker.app).settings.store_timeout
    short = []
    for task in worker.app.tasks.values():
        limit = task.time_limit or worker.time_limit
        soft = (task.soft_time_limit or worker.soft_time_limit) if has_soft_limits else None
        is_coordinated = getattr(task, "_coord_policy", None) is not None
        if is_coordinated and limit and limit <= longest and not (soft and soft < limit):
            short.append((limit, task.name))
    short.sort()
    if short:
        logger.warning(
            "asking a store that does not answer takes up to %g s, and the time limit of %s is shorter: where it ends "
            "a run meanwhile, that fails and is not tried again; give it more time, or set coord_store_timeout = %g",
            longest,
            ", ".join(f"{name} ({limit:g} s)" for limit, name in short[:_NAMES_AT_MOST]),
            short[0][0] / (_ANSWERS_PER_ACT + 1),
        )


def warn_of_memory(app: Any, what: str) -> None:
    """A store in memory is this process's alone: there is no other to follow."""
    if coordination(app).settings.url.startswith("memory://"):
        logger.warning("memory:// serves one process: %s; set coord_url = 'redis://...' for one of many", what)


def refuse(why: str) -> NoReturn:
    """End the process, with a sentence instead of a traceback."""
    raise SystemExit(f"celery_coord: {why}")


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]  # Celery has no types
@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _finish(**_: Any) -> None:
    finish(FINISH_WITHIN)


def _is_made_of(pool_cls: Any, pool: str) -> bool:
    """Whether a pool is Celery's of that name, or a user's own that is made of it."""
    return any(each.__module__ == f"celery.concurrency.{pool}" for each in pool_cls.__mro__)
