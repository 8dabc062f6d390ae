"""A message that is delivered again: one body while the holder lives, none after it ended well, and the work done."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import celery
import psutil
import pytest
from celery import chord
from celery.result import AsyncResult
from coord_site import fresh_n
from endings_site import LONG_WAIT, RESTORES_SOON, EndingsSite, Run, Worker
from endings_table import Kind
from local_processes import wait_until

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(celery.VERSION < (5, 7), reason="an older Redis transport looks for messages every 100 s"),
]

#: Not before a worker that was stopped asks its Redis for nothing any more: what it is given then is lost with it.
RESTORES_LATER = (("broker_transport_options", {**RESTORES_SOON, "visibility_timeout": 6}),)


def with_a_worker(*kinds: Kind) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("worker", kinds, indirect=True, ids=lambda kind: kind.broker)


@pytest.fixture
def worker(endings: EndingsSite, request: pytest.FixtureRequest) -> Iterator[Worker]:
    taken = endings.take(request.param)
    yield taken
    taken.end()


def in_a_chord(site: EndingsSite, worker: Worker) -> tuple[Run, AsyncResult]:
    """A run with late ack that has begun, and the chord that it is a part of."""
    app, n = site.app_for(worker), fresh_n()
    part = app.tasks["late"].si(n, "succeed").set(queue=worker.queue)
    body = app.tasks["same"].s().set(queue=worker.queue)
    whole = chord([part], body).apply_async()
    begun = site.wait_for_word(n, "begin")
    return Run(n, worker, app, begun["id"], begun=begun), whole


def assert_one_body_and_a_duplicate(site: EndingsSite, run: Run, whole: AsyncResult | None = None) -> None:
    """The run has ended as if its message had come once."""
    if whole is not None:
        assert whole.get(timeout=LONG_WAIT) == ["done"]
    assert run.result.get(timeout=LONG_WAIT) == "done"
    site.wait_for_signal("task_duplicate", task_id=run.id)
    site.probe(run.worker)
    assert run.result.state == "SUCCESS"
    assert site.words(run.n) == ["begin", "end"]
    assert not site.signals("task_dropped", task_id=run.id)


@with_a_worker(Kind("prefork", "redis"), Kind("prefork", "rabbitmq"))
def test_a_connection_that_is_lost_leaves_one_body_and_its_chord_as_they_are(
    endings: EndingsSite, worker: Worker
) -> None:
    """7. While the earlier delivery lives the copy waits, writing nothing; after its good end it is a duplicate."""
    run, whole = in_a_chord(endings, worker)

    endings.cut_off(worker)
    endings.wait_for_signal("task_deferred", task_id=run.id, why="redelivered")
    assert run.result.state == "PENDING"
    endings.go(run.n)

    assert_one_body_and_a_duplicate(endings, run, whole)


@with_a_worker(Kind("prefork", "redis", redelivers=True))
def test_a_visibility_timeout_shorter_than_the_body_leaves_one_body_and_its_chord_as_they_are(
    endings: EndingsSite, worker: Worker
) -> None:
    """7. A message that Redis gives out again while its body runs waits for it, and is a duplicate then."""
    run, whole = in_a_chord(endings, worker)

    endings.wait_for_signal("task_deferred", task_id=run.id, why="redelivered")
    assert run.result.state == "PENDING"
    endings.go(run.n)

    assert_one_body_and_a_duplicate(endings, run, whole)


@with_a_worker(Kind("prefork", "redis", redelivers=True))
def test_a_message_for_later_that_comes_to_two_workers_runs_once(endings: EndingsSite, worker: Worker) -> None:
    """7. A countdown longer than the visibility timeout has Redis give the message to another worker as well."""
    second = endings.succeed(worker)
    try:
        run = endings.send(worker, "early", "succeed", countdown=6)
        wait_until(
            lambda: all(f"[{run.id}] received" in one.process.output for one in (worker, second)),
            "both workers have it",
        )
        endings.wait_for_word(run.n, "begin")
        endings.wait_for_signal("task_deferred", task_id=run.id, why="redelivered")
        endings.go(run.n)

        assert_one_body_and_a_duplicate(endings, run)
    finally:
        second.end()


@with_a_worker(Kind("prefork", "redis", RESTORES_LATER, redelivers=True), Kind("prefork", "rabbitmq"))
def test_nothing_runs_twice_when_the_worker_dies_between_the_result_and_the_ack(
    endings: EndingsSite, worker: Worker
) -> None:
    """7. If the earlier delivery succeeded the message ends as a duplicate and runs nothing."""
    successor = endings.succeed(worker)
    try:
        run = endings.send(worker, "late", "succeed")
        begun = endings.wait_for_word(run.n, "begin")
        taker = successor if psutil.Process(begun["pid"]).ppid() == successor.process.pid else worker

        taker.process.signal(signal.SIGSTOP)  # the parent acknowledges, the child stores the result
        endings.go(run.n)
        assert run.result.get(timeout=LONG_WAIT) == "done"
        taker.process.signal(signal.SIGKILL)

        assert_one_body_and_a_duplicate(endings, run)
    finally:
        successor.end()
