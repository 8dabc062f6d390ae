"""The application whose runs end in every way there is: ``celery -A endings_project ...``.

The first body of a run tells that it began, waits for the test's word, and then ends as it was told to. A later body of
the same run, after a retry or a redelivery, tells that it began and ends well.
"""

from __future__ import annotations

import collections
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import coord_project
from celery import Task
from celery.exceptions import Ignore, Reject
from coord_project import one_per_n, recorder, tell

from celery_coord import Exclusive

#: A lease so long that nothing but its release explains a key that is free soon.
LONG = 30.0
#: A lease whose end can be waited for.
SHORT = 6.0
#: How long a retry waits: where it follows at once, Celery may write RETRY over the SUCCESS of the next try.
PAUSE = 0.3

_PATIENCE = 120.0


def await_go(n: str) -> None:
    """Block until the test says so, as a body does that waits for an answer from somewhere."""
    deadline = time.monotonic() + _PATIENCE
    while not recorder().blpop([f"gone:{n}"], timeout=2):
        if time.monotonic() > deadline:
            raise TimeoutError("the test never said go")


class Passing(Exception):
    """What a task of these retries by itself."""


def fail(task: Task, n: str) -> None:
    raise ValueError(n)


def retry(task: Task, n: str) -> None:
    raise task.retry(countdown=PAUSE)


def autoretry(task: Task, n: str) -> None:
    raise Passing(n)


def replace(task: Task, n: str) -> None:
    queue = (task.request.delivery_info or {}).get("routing_key")
    task.replace(task.si(n, "succeed").set(queue=queue))  # raises; an eager run goes on with what the other returned


def ignore(task: Task, n: str) -> None:
    raise Ignore(n)


def reject(task: Task, n: str) -> None:
    raise Reject(n, requeue=False)


def requeue(task: Task, n: str) -> None:
    raise Reject(n, requeue=True)


def leave(task: Task, n: str) -> None:
    sys.exit(3)


def exhaust(task: Task, n: str) -> None:
    raise MemoryError(n)


def compute(task: Task, n: str) -> None:
    """One call into C that lets nobody in: no signal handler of Python's, no other thread."""
    collections.deque(itertools.repeat(None), maxlen=0)


def succeed(task: Task, n: str) -> None:
    """Nothing else happens."""


ACTS: dict[str, Callable[[Task, str], None]] = {
    act.__name__: act
    for act in (succeed, fail, retry, autoretry, replace, ignore, reject, requeue, leave, exhaust, compute)
}


def _body(task: Task, n: str, act: str) -> str:
    begun = recorder().incr(f"bodies:{n}")
    tell(n, "begin")
    if begun == 1:
        await_go(n)
        ACTS[act](task, n)
    tell(n, "end")
    return "done"


def _declare(name: str, ttl: float, **options: Any) -> None:
    def body(self: Task, n: str, act: str) -> str:
        return _body(self, n, act)

    body.__name__ = body.__qualname__ = name
    one_per_n(
        bind=True,
        exclusive=Exclusive(ttl=ttl),
        autoretry_for=(Passing,),
        retry_backoff=False,
        default_retry_delay=PAUSE,
        max_retries=3,
        **options,
    )(body)


for _length, _ttl in (("", LONG), ("brief_", SHORT)):
    _declare(f"{_length}early", _ttl)
    _declare(f"{_length}late", _ttl, acks_late=True)
_declare("late_rejecting", LONG, acks_late=True, reject_on_worker_lost=True)
_declare("late_retrying", LONG, acks_late=True, retry_on_worker_lost=True)

if coord_project.URL in os.environ:  # started by a test, not imported by one
    app = coord_project.make_app(**json.loads(os.environ[coord_project.CONF]))
