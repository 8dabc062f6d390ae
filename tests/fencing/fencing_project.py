"""The application that the workers of these tests run: bodies that write by the recipes of docs/fencing.md."""

from __future__ import annotations

import json
import os

from celery import Task, chain
from coord_project import CONF, Project, await_go, recorder, tell
from recipes import RECIPES, Recipe

from celery_coord import Exclusive, ExclusiveTask, current_lease, parent_lease

app = Project("fencing", set_as_current=False)
app.conf.update(json.loads(os.environ[CONF]))


def _recipe(name: str) -> Recipe:
    """The recipe; its tables were made by the test. Loaded here, in the child: a connection survives no fork."""
    return RECIPES[name](tables=False)


@app.task(base=ExclusiveTask, key="n:{n}", exclusive=Exclusive(ttl=1))
def write(n: str, recipe: str, size: int, *, wait: bool = False) -> None:
    """Writes a row, and rows behind a fence, with its own token."""
    lease = current_lease()
    tell(n, "begin")
    if wait:
        await_go(n)
    refused = None
    try:
        _recipe(recipe).write_size(n, size, lease.token)
    except Exception as error:
        refused = error
    _recipe(recipe).write_replicas(n, range(size), lease)
    if refused:
        raise refused


@app.task(base=ExclusiveTask, key="n:{n}", exclusive=Exclusive(ttl=1))
def send_children(n: str, recipe: str, size: int, *, wait: bool = False) -> list[str]:
    """Leaves the write to children: one of its own, and the second step of a chain.

    Returns:
        The ids of those that write.
    """
    tell(n, "begin")
    if wait:
        await_go(n)
    child = store.delay(n, recipe, size)
    second = chain(say.si(n), store.si(f"{n}-second", recipe, size)).delay()
    return [child.id, second.id]


@app.task
def say(n: str) -> None:
    """A step that writes nothing."""
    tell(n, "step")


@app.task
def store(n: str, recipe: str, size: int) -> None:
    """Writes a row with the token of the run that stands behind it."""
    lease = parent_lease()
    if lease is None:
        raise ValueError("store is for tasks that hold a lease")
    _recipe(recipe).write_size(n, size, lease.token)
    _recipe(recipe).write_replicas(n, range(size), lease)


@app.task(base=ExclusiveTask, key="n:{n}")
def guard(n: str) -> None:
    """A guarded run that sends a child; what stands behind it is the test's."""
    own = current_lease()
    see.delay(n, "child")
    recorder().hset(f"behind:{n}", "guard", json.dumps([own.key, own.token]))


@app.task(base=ExclusiveTask, key="n:{n}")
def guard_that_fails(n: str) -> None:
    raise ValueError(n)


@app.task
def relay(n: str) -> None:
    """Holds no lease, and sends another task."""
    see.delay(n, "grandchild")


@app.task(base=ExclusiveTask, key="inner:{n}")
def guard_inside(n: str) -> None:
    """Holds a lease of its own, and was sent under another."""
    remember(n, "guarded child")
    see.delay(n, "child of the inner guard")


@app.task(bind=True, max_retries=1, default_retry_delay=0)
def see_twice(self: Task, n: str) -> None:
    """Looks again when it is tried again."""
    remember(n, f"try {self.request.retries}")
    if self.request.retries == 0:
        raise self.retry(countdown=0)


@app.task(base=ExclusiveTask, key="n:{n}")
def guard_by_call(n: str) -> None:
    """A guarded run that calls another task as a function, and that one sends."""
    own = current_lease()
    relay(n)
    recorder().hset(f"behind:{n}", "guard", json.dumps([own.key, own.token]))


@app.task
def relay_by_call(n: str) -> None:
    """Calls another task as a function."""
    see(n, "called")


@app.task
def see_error(failed: str) -> None:
    """An errback with one argument: it is sent, and not called on the spot. It knows the id of what failed alone."""
    remember(failed, "errback")


@app.task
def see(n: str, who: str) -> None:
    remember(n, who)


def remember(n: str, who: str) -> None:
    """Tells which lease stands behind the task that runs."""
    behind = parent_lease()
    recorder().hset(f"behind:{n}", who, json.dumps(behind and [behind.key, behind.token]))
