"""The application that the workers and beats of these tests run: ``celery -A coord_project ...``.

A body tells its story into Redis and, where it waits, ends when the test says so: nothing here depends on time.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import redis
from billiard import current_process
from celery import Celery, Task, current_task
from celery.utils.dispatch import Signal

from celery_coord import (
    Cooldown,
    CooldownTask,
    CoordinatedTask,
    Exclusive,
    ExclusiveTask,
    LeaseLost,
    current_lease,
    parent_lease,
)
from celery_coord.signals import SIGNALS

#: Where bodies and signals are recorded; set by the test that starts this process.
URL = "PROJECT_URL"
#: The settings of the application, as JSON: values alone.
CONF = "PROJECT_CONF"

_PATIENCE = 120.0

Body = Callable[..., Any]
BODIES: list[tuple[Body, dict[str, Any]]] = []


class Project(Celery):  # type: ignore[misc]  # Celery has no types
    def gen_task_name(self, name: str, module: str) -> str:
        """One name for a task, whatever this module is called."""
        return name


def make_app(**conf: Any) -> Celery:
    """The application, with settings of one's own; it leaves Celery's current application alone."""
    app = Project("project", set_as_current=False)
    app.conf.update(conf)
    declare_tasks(app)
    return app


def declare_tasks(app: Celery) -> None:
    for body, options in BODIES:
        app.task(shared=False, **options)(body)


def task(**options: Any) -> Callable[[Body], Body]:
    def declare(body: Body) -> Body:
        BODIES.append((body, options))
        return body

    return declare


def one_per_n(**options: Any) -> Callable[[Body], Body]:
    """A task on the key that most tasks here share."""
    return task(**{"base": ExclusiveTask, "key": "n:{n}", **options})


@one_per_n()
def hold(n: str) -> dict[str, Any]:
    return tell_all(n, wait=True)


@one_per_n()
def step(n: str) -> dict[str, Any]:
    return tell_all(n)


@one_per_n(on_drop="return")
def yielding(n: str) -> dict[str, Any]:
    return tell_all(n)


@one_per_n(ignore_result=True)
def unheard(n: str) -> None:
    tell_all(n)


@one_per_n(exclusive=Exclusive(ttl=1))
def brief(n: str) -> dict[str, Any]:
    return tell_all(n, wait=True)


@one_per_n(exclusive=Exclusive(ttl=6))
def steady(n: str) -> dict[str, Any]:
    return tell_all(n, wait=True)


@one_per_n(exclusive=Exclusive(ttl=6))
def watchful(n: str) -> dict[str, Any]:
    return tell_loss(n)


@one_per_n(exclusive=Exclusive(ttl=3, max_hold=2.5))
def bounded(n: str) -> dict[str, Any]:
    return tell_loss(n)


@one_per_n(exclusive=Exclusive(ttl=3), time_limit=2)
def limited(n: str) -> dict[str, Any]:
    return tell_loss(n)


@one_per_n(cooldown=60)
def costly(n: str, *, wait: bool = False, fail: bool = False) -> dict[str, Any]:
    return tell_all(n, wait=wait, fail=fail)


@one_per_n(cooldown=Cooldown(60, on_failure=10, jitter=0.5))
def touchy(n: str, *, fail: bool = False) -> dict[str, Any]:
    return tell_all(n, fail=fail)


@task(base=CooldownTask, cooldown=60, key="n:{n}")
def pausing(n: str) -> dict[str, Any]:
    return tell_all(n, wait=True)


@task(base=CoordinatedTask)
def annotated(n: str) -> dict[str, Any]:
    """Guarded where the setting ``task_annotations`` says so."""
    return tell_all(n)


@one_per_n(bind=True, cooldown=60, max_retries=1, default_retry_delay=0)
def retrying(self: Task, n: str, *, countdown: float = 0) -> dict[str, Any]:
    tell(n, f"try {self.request.retries}")
    if self.request.retries == 0:
        raise self.retry(countdown=countdown)
    return tell_all(n)


@one_per_n(bind=True, autoretry_for=(ValueError,), max_retries=1, default_retry_delay=0, cooldown=60)
def autoretrying(self: Task, n: str) -> dict[str, Any]:
    tell(n, f"try {self.request.retries}")
    return tell_all(n, fail=self.request.retries == 0)


@one_per_n(bind=True)
def replacing(self: Task, n: str) -> dict[str, Any]:
    raise self.replace(self.app.tasks["step"].si(n))


@one_per_n(acks_late=True, reject_on_worker_lost=True, cooldown=60)
def durable(n: str) -> dict[str, Any]:
    return tell_all(n, wait=True)


@one_per_n(bind=True, exclusive=Exclusive(hold_on_retry=True), cooldown=Cooldown(60, on_failure=10), max_retries=1)
def tenacious(self: Task, n: str, *, countdown: float = 0, fail: bool = False) -> dict[str, Any]:
    """Holds its key over its retry; the retry ends well, or fails for good."""
    tell(n, f"try {self.request.retries}")
    if self.request.retries == 0:
        raise self.retry(countdown=countdown)
    return tell_all(n, wait=True, fail=fail)


@one_per_n(exclusive=Exclusive(ttl=6, on_lost="raise"))
def interruptible(n: str) -> None:
    """Blocks in one call; only an interruption ends it."""
    tell(n, "begin")
    try:
        time.sleep(_PATIENCE)
    except LeaseLost:
        tell(n, "interrupted")
        raise


@one_per_n(exclusive=Exclusive(ttl=6, on_lost="raise"))
def tolerant(n: str) -> dict[str, Any]:
    """Is interrupted, and goes on to a good end all the same."""
    tell(n, "begin")
    try:
        await_go(n)
    except LeaseLost:
        tell(n, "interrupted")
        await_go(n)
    return facts()


def only_in_a_child(n: str) -> str:
    if current_process().name == "MainProcess":
        raise RuntimeError("not in the parent")
    return n


@task(base=ExclusiveTask, key=only_in_a_child, exclusive=Exclusive(ttl=1))
def childish(n: str) -> dict[str, Any]:
    return tell_all(n, wait=True)


@one_per_n(time_limit=4)
def stubborn(n: str) -> None:
    """Hears no SIGTERM, and says that it lives until it is killed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tell(n, "begin")
    while True:
        recorder().set(f"alive:{n}", time.time())
        time.sleep(0.001)


@one_per_n(acks_late=True, ignore_result=True)
def mute(n: str) -> None:
    """Keeps no result, so that its end is known by what it sets off alone."""
    tell_all(n, wait=True)


@one_per_n(bind=True, cooldown=60)
def parental(self: Task, n: str) -> dict[str, Any]:
    """Sends a task that holds no lease, which sends another."""
    self.app.tasks["child"].delay(n, depth=1)
    return facts()


@task(bind=True)
def child(self: Task, n: str, *, depth: int = 0) -> None:
    sent_under = parent_lease()
    recorder().rpush(f"children:{n}", json.dumps(sent_under and [sent_under.key, sent_under.token]))
    if depth:
        self.app.tasks["child"].delay(n, depth=depth - 1)


@one_per_n(bind=True, max_retries=1)
def retrying_child(self: Task, n: str) -> None:
    """Retries; the retry was sent under the lease that the first try was sent under."""
    sent_under = parent_lease()
    recorder().rpush(f"children:{n}", json.dumps(sent_under and [sent_under.key, sent_under.token]))
    if self.request.retries == 0:
        raise self.retry(countdown=0)


@one_per_n(bind=True, key="other:{n}")
def parental_of_a_retry(self: Task, n: str) -> dict[str, Any]:
    self.app.tasks["retrying_child"].delay(n)
    return facts()


@task()
def note(n: str) -> str:
    """A task like any other."""
    tell(n, "note")
    return n


@task()
def same(value: Any) -> Any:
    """What stands behind another task, and passes on what it was given."""
    return value


def tell_all(n: str, *, wait: bool = False, fail: bool = False) -> dict[str, Any]:
    """A body: begin, wait for the test's word if it should, end."""
    tell(n, "begin")
    if wait:
        await_go(n)
    if fail:
        raise ValueError(n)
    tell(n, "end")
    return facts()


def tell_loss(n: str) -> dict[str, Any]:
    """A body that goes on until it finds its lease lost, and then until the test's word."""
    tell(n, "begin")
    await_that(lambda: current_lease().lost)
    tell(n, "lost")
    await_go(n)
    return facts()


def facts() -> dict[str, Any]:
    lease = current_lease(None)
    return {"pid": os.getpid(), "token": lease and lease.token, "lost": lease and lease.lost}


def tell(n: str, word: str) -> None:
    recorder().rpush(f"story:{n}", json.dumps({"word": word, "id": current_task.request.id, **facts()}))


def await_go(n: str) -> None:
    await_that(lambda: bool(recorder().exists(f"go:{n}")))


def await_that(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError("the test never said go")
        time.sleep(0.01)


@cache
def recorder() -> redis.Redis:
    return redis.Redis.from_url(os.environ[URL])


def record_signal(which: str, /, *, sender: object, signal: Signal, **fields: Any) -> None:
    recorder().rpush(f"signals:{which}", json.dumps({"pid": os.getpid(), "at": time.time(), **fields}))


def record_signals() -> None:
    for ours in SIGNALS.values():
        ours.connect(partial(record_signal, ours.name), weak=False)


if URL in os.environ:  # started by a test, not imported by one
    record_signals()
    app = make_app(**json.loads(os.environ[CONF]))
