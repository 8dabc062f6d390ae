"""Nothing of a run lives on the task: its instance is one for all threads and greenlets of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from celery import Celery, Task, states
from celery.exceptions import Ignore, Reject

from celery_coord import CoordinatedTask, Exclusive, ExclusiveTask, current_lease
from celery_coord.testing import FakeClock, use_memory

#: How many runs are in their bodies at once.
MANY = 8


@pytest.fixture
def app(clock: FakeClock) -> Celery:
    app = Celery("eager", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_always_eager = True
    use_memory(app, clock)
    return app


def state_of(task: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """All that the instance and its class hold; what they hold is compared as well."""
    instance = task.app.tasks[task.name]  # not the stand-in that the decorator returned
    return dict(vars(instance)), dict(vars(type(instance)))


def settled(task: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The task's state once Celery and we have put what belongs to the task there, which the first run does."""
    task.apply((0, "warm"))
    return state_of(task)


def succeed(task: Task, seen: Callable[[], None]) -> str:
    seen()
    return "done"


def fail(task: Task, seen: Callable[[], None]) -> None:
    seen()
    raise ValueError("no")


def retry(task: Task, seen: Callable[[], None]) -> None:
    seen()
    if task.request.retries < 2:
        raise task.retry(countdown=0)


def ignore(task: Task, seen: Callable[[], None]) -> None:
    seen()
    raise Ignore("nobody asked")


def reject(task: Task, seen: Callable[[], None]) -> None:
    seen()
    raise Reject("no", requeue=False)


def exit_(task: Task, seen: Callable[[], None]) -> None:
    seen()
    raise SystemExit(3)


ENDINGS = {"success": succeed, "failure": fail, "retry": retry, "ignore": ignore, "reject": reject, "exit": exit_}


def make(app: Celery, ending: str, **options: Any) -> tuple[Any, list[Any]]:
    """A task that ends so, and what its instance and class held as each of its bodies ran."""
    during: list[Any] = []

    @app.task(base=ExclusiveTask, key="n:{n}", bind=True, **options)
    def tried(self: Task, n: int, how: str = ending) -> Any:
        assert current_lease().token
        if how == "warm":
            return None
        return ENDINGS[how](self, lambda: during.append(state_of(self)))

    return tried, during


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_run_leaves_nothing_on_its_task_however_it_ends(app: Celery, ending: str) -> None:
    """No state of a run on the task instance: it is the same before a run, in it, and after it."""
    task, during = make(app, ending, cooldown=60)
    before = settled(task)

    try:
        task.apply((1,))
    except SystemExit:
        assert ending == "exit"

    assert during
    assert all(seen == before for seen in during)
    assert state_of(task) == before


@pytest.mark.parametrize("on_drop", ["revoke", "return"])
def test_a_dropped_run_leaves_nothing_on_its_task(app: Celery, on_drop: str) -> None:
    """No state of a run on the task instance: nor of one that was dropped while another one ran, or after it."""
    inner: list[str] = []

    @app.task(base=ExclusiveTask, key="n:{n}", bind=True, on_drop=on_drop, cooldown=60)
    def nested(self: Task, n: int, how: str = "") -> None:
        if not how:
            inner.append(self.apply((n, "warm")).state)  # meets its own holder

    before = settled(nested)

    nested.apply((1,))
    cooling = nested.apply((1,)).state

    assert [*inner, cooling] == [states.REVOKED if on_drop == "revoke" else states.SUCCESS] * 2
    assert state_of(nested) == before


def test_runs_in_many_threads_at_once_leave_nothing_on_their_task(app: Celery) -> None:
    """No state of a run on the task instance: each thread has its own lease, and the instance none of them."""
    together = threading.Barrier(MANY, timeout=30)
    during: list[Any] = []

    @app.task(base=ExclusiveTask, key="n:{n}", bind=True, exclusive=Exclusive(ttl=30))
    def crowded(self: Task, n: int, how: str = "") -> tuple[str, int] | None:
        if how:
            return None
        together.wait()  # all of them are in their bodies now
        during.append(state_of(self))
        together.wait()
        return current_lease().key, current_lease().token

    before = settled(crowded)
    with ThreadPoolExecutor(MANY) as threads:
        held = list(threads.map(lambda n: crowded.apply((n,)).get(), range(1, MANY + 1)))

    assert [key for key, _ in held] == [f"n:{n}" for n in range(1, MANY + 1)]
    assert len(during) == MANY
    assert all(seen == before for seen in during)
    assert state_of(crowded) == before
    assert current_lease(None) is None


def test_a_task_without_options_has_nothing_of_ours_beside_its_class(app: Celery) -> None:
    """A task that is not coordinated is like any other, in its runs as well."""

    @app.task(base=CoordinatedTask, bind=True)
    def plain(self: Task, n: int, how: str = "") -> None: ...

    before = settled(plain)

    plain.apply((1,))

    assert state_of(plain) == before
