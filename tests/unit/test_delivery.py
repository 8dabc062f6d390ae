"""What the parent does for its children, with requests and deaths that the test makes up."""

from __future__ import annotations

import queue
import threading
from typing import Any

import pytest
from celery import Celery
from doubles import Seen
from local_processes import wait_until

from celery_coord import ExclusiveTask, delivery
from celery_coord.app import Coordination, coordination
from celery_coord.delivery import Request
from celery_coord.errors import StoreError
from celery_coord.testing import FakeClock, use_memory


class Deaths:
    """Those that the test tells of."""

    def __init__(self) -> None:
        self.told: queue.Queue[list[int]] = queue.Queue()
        self.watched: list[int] = []

    def watch(self, pid: int) -> None:
        self.watched.append(pid)

    def wait(self, timeout: float | None = None) -> list[int]:
        try:
            return self.told.get(timeout=timeout)
        except queue.Empty:
            return []


class Orphan:
    """A request whose lease is abandoned when the store lets it."""

    ttl = 30.0

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.told: list[Exception] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    def abandon(self) -> None:
        self.may_answer.wait(30)
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer

    def tell(self, error: Exception) -> None:
        self.told.append(error)


@pytest.fixture
def deaths(monkeypatch: pytest.MonkeyPatch) -> Deaths:
    made_up = Deaths()
    monkeypatch.setattr(delivery, "deaths", lambda: made_up)
    monkeypatch.setattr(delivery, "_TRY_AGAIN", 0.01)
    return made_up


@pytest.fixture
def children(deaths: Deaths) -> Any:
    return delivery._Children()


def test_children_that_die_together_lose_their_keys_together(children: Any, deaths: Deaths) -> None:
    """4. ... of all of them, however long the store takes for the first, and whatever Celery forgets meanwhile."""
    orphans = {pid: Orphan() for pid in (1, 2, 3)}
    orphans[1].may_answer.clear()
    for pid, orphan in orphans.items():
        children.has_begun(pid, orphan)

    deaths.told.put([1])
    deaths.told.put([2, 3])
    orphans[1].may_answer.set()

    wait_until(lambda: all(orphan.asked for orphan in orphans.values()), "all are abandoned")
    assert deaths.watched == [1, 2, 3]


def test_a_store_that_does_not_answer_is_asked_again(children: Any, deaths: Deaths) -> None:
    """4. While the parent lives, it is free within a second of when the store is back."""
    orphan, other = Orphan(StoreError("away"), StoreError("away")), Orphan()
    children.has_begun(1, orphan)
    children.has_begun(2, other)

    deaths.told.put([1, 2])

    wait_until(lambda: orphan.asked == 3, "it is asked until it answers")
    assert [str(error) for error in orphan.told] == ["away", "away"]
    assert other.asked == 1


def test_a_key_that_cannot_be_computed_is_told_and_spoils_nothing(children: Any, deaths: Deaths) -> None:
    """10. Hooks never raise in the parent: the children that die later are seen to all the same."""
    broken, sound = Orphan(RuntimeError("no key")), Orphan()
    children.has_begun(1, broken)
    deaths.told.put([1])
    wait_until(lambda: broken.told, "it is told")
    children.has_begun(2, sound)
    deaths.told.put([2])

    wait_until(lambda: sound.asked, "the other is abandoned")
    assert broken.asked == 1


def test_after_its_ttl_a_lease_has_ended_by_itself(
    children: Any, deaths: Deaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Orphan, "ttl", 0.0)
    hopeless = Orphan(*[StoreError("away")] * 1000)
    children.has_begun(1, hopeless)

    deaths.told.put([1])
    wait_until(lambda: hopeless.told, "it is told")
    deaths.told.put([])

    assert hopeless.asked == 1


@pytest.fixture
def request_(monkeypatch: pytest.MonkeyPatch) -> Request:
    """A request of a task that takes a lease, in a worker that has children."""
    app = Celery("deliveries", broker="memory://", set_as_current=False)
    use_memory(app, FakeClock())

    @app.task(base=ExclusiveTask, name="leased")
    def leased() -> None: ...

    request = Request.__new__(Request)
    request._task = leased
    coordination(app).has_children = True
    return request


def test_a_child_that_cannot_be_watched_is_told_and_its_task_goes_on(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10. Hooks never raise in the parent: it may be out of descriptors, or of threads."""
    seen = Seen()
    monkeypatch.setattr(Coordination, "notify", lambda self, event: seen(event))

    def none_left() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(delivery, "_children", none_left)

    request_._watch(4711)

    assert "watching the child 4711" in str(seen.events)


def test_a_pool_without_children_is_not_watched(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool of greenlets calls the id of an object a process."""
    coordination(request_.task.app).has_children = False
    monkeypatch.setattr(delivery, "_children", lambda: pytest.fail("there are none"))

    request_._watch(140_000_000_000_000)
