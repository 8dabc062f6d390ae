"""Which lease a task was sent under: the token goes on to the tasks that a guarded body sends.

What a run sends, and what Celery sends when it has ended (callbacks, the next step of its chain), carries a header with
its key and its token. A task that holds no lease hands on the one that it was sent under.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import signals
from celery._state import get_current_worker_task

#: The header: key and token.
HEADER = "coord_lease"
#: The header of what a run sends to stand in for itself.
REPLACES = "coord_replaces"
#: The mark of a request whose run has sent that. Celery makes a mark of each header: so it is another word.
REPLACED = "coord_is_replaced"


@dataclass(frozen=True, slots=True)
class ParentLease:
    """The lease under which a task was sent; by now it may have ended.

    Attributes:
        key: the name of what is guarded.
        token: its fencing token.
    """

    key: str
    token: int


def parent_lease() -> ParentLease | None:
    """The lease under which the running task was sent; a task that is called as a function is part of its caller.

    Returns:
        Its key and token; None outside of a task, and where the task was not sent by one that held a lease.
    """
    task = get_current_worker_task()
    sent_under = _inherited(task.request) if task else None
    return ParentLease(sent_under[0], int(sent_under[1])) if sent_under else None


def holds(request: Any, key: str, token: int) -> None:
    """A run has been admitted: what is sent in its name carries this lease."""
    setattr(request, HEADER, [key, token])


def _inherited(request: Any) -> Any:
    return (request.headers or {}).get(HEADER)


@signals.before_task_publish.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _hand_down(headers: dict[str, Any] | None = None, **_: Any) -> None:
    task = get_current_worker_task()
    if task is None or headers is None:
        return
    request = task.request
    # A retry and a replacement of the run have its id, and the parent that it had.
    lease = _inherited(request) if headers.get("id") == request.id else getattr(request, HEADER, None)
    if lease:
        headers[HEADER] = lease
    if getattr(request, REPLACED, False):
        headers[REPLACES] = True
