"""One delivery of a message, as the worker's parent process has it.

The parent gives each delivery the nonce of its owner, so that it can abandon the lease of a child that died. It does so
when the child is dead and not before: a time limit and a revocation are announced while the body still runs. It waits
for that in a thread of its own; Celery's event loop is never kept waiting, and no error of ours reaches it.

In a pool without children there is nobody whose death the parent could survive.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any

from celery.worker.request import Request as CeleryRequest

from celery_coord.app import coordination
from celery_coord.deaths import Deaths, deaths
from celery_coord.errors import StoreError
from celery_coord.events import StoreFailed
from celery_coord.run import NONCE, owner_of

_TRY_AGAIN = 1.0


class Request(CeleryRequest):  # type: ignore[misc]  # Celery has no types
    """Celery's request, which sees to it that a dead child keeps no key."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Not in the headers and not in the delivery's info: both may be published again, by a retry.
        self._request_dict["properties"] = {**self._request_dict["properties"], NONCE: os.urandom(6).hex()}

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Celery's callback: a child has begun with the task."""
        self._watch(pid)
        super().on_accepted(pid, time_accepted)

    def _watch(self, pid: int) -> None:
        if not self.task.coord_takes_lease:  # an application of such tasks alone has no store
            return
        coordinated = coordination(self.task.app)
        if not coordinated.has_children:
            return
        try:
            _children().has_begun(pid, self)
        except Exception as error:  # noqa: BLE001  out of descriptors, or of threads: Celery must go on all the same
            coordinated.notify(StoreFailed(f"watching the child {pid}", f"{type(error).__name__}: {error}"))

    @property
    def ttl(self) -> float:
        """How long the lease lasts that the child may hold, in seconds."""
        return self.task.coord_ttl  # type: ignore[no-any-return]

    def abandon(self) -> None:
        """The child is dead: its lease, if it has one, is nobody's.

        Raises:
            StoreError: the store does not answer.
        """
        gate = coordination(self.task.app).gate
        gate.abandon(self.task.key_of(*self.args, **self.kwargs), owner_of(self._context))

    def tell(self, error: Exception) -> None:
        """It could not be abandoned: it ends by itself, or the next try ends it."""
        doing = f"abandoning {self.task.name}[{self.id}]"
        coordination(self.task.app).notify(StoreFailed(doing, f"{type(error).__name__}: {error}"))


class _Children:
    """The children of this process, each with what it began last.

    That may have ended long since. A lease that has ended is not abandoned again: nobody is its owner any more.
    """

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._deaths: Deaths = deaths()
        self._latest: dict[int, Request] = {}
        self._orphaned: list[tuple[Request, float]] = []
        threading.Thread(target=self._keep, name="celery_coord-children", daemon=True).start()

    def has_begun(self, pid: int, request: Request) -> None:
        """A child began with a request, and so has ended the one before."""
        self._latest[pid] = request
        self._deaths.watch(pid)

    def _keep(self) -> None:
        while True:
            dead = self._deaths.wait(_TRY_AGAIN if self._orphaned else None)
            # All of them before the first one: to abandon a lease may take as long as the store does.
            requests = [self._latest.pop(pid) for pid in dead if pid in self._latest]
            self._orphaned += [(request, time.monotonic() + request.ttl) for request in requests]
            self._orphaned = [orphan for orphan in self._orphaned if not self._abandoned(*orphan)]

    def _abandoned(self, request: Request, until: float) -> bool:
        """Whether nothing is left to do for a request; after its ttl its lease has ended by itself."""
        try:
            request.abandon()
        except StoreError as error:
            request.tell(error)
            return time.monotonic() >= until
        except Exception as error:  # noqa: BLE001  whatever a user's key raises: this thread serves all children
            request.tell(error)
        return True


_found: _Children | None = None


def _children() -> _Children:
    global _found  # noqa: PLW0603  one thread a process, which does not survive a fork
    if _found is None or _found.pid != os.getpid():
        _found = _Children()
    return _found
