"""While the store is away each run fails in the same way: the log says it now and then, and for how many."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from celery_coord import signals
from celery_coord.app import Coordination
from celery_coord.events import StoreFailed, TaskDeferred
from celery_coord.testing import FakeClock

EVENTS = (
    StoreFailed("asking for k", "ConnectionError: Error 111 connecting to 127.0.0.1:6379."),
    TaskDeferred("task", "id", "k", "store", 1.0),
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def coordination(clock: FakeClock) -> Iterator[Coordination]:
    with Celery("log", set_as_current=False) as app:
        app.conf.coord_url = "memory://"
        yield Coordination(app, clock)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_one_line_in_ten_seconds_stands_for_all_and_says_how_many(
    coordination: Coordination, clock: FakeClock, caplog: Any, event: Any
) -> None:
    told: list[object] = []
    signal = signals.SIGNALS[type(event)]
    hear = lambda **fields: told.append(fields)  # noqa: E731
    signal.connect(hear, weak=False)
    caplog.set_level(logging.INFO, "celery_coord")

    for _ in range(300):
        coordination.notify(event)
    assert len(caplog.records) == 1
    clock.advance(10.0)
    coordination.notify(event)

    signal.disconnect(hear)
    assert len(caplog.records) == 2
    assert "299 more" in caplog.records[1].message
    assert len(told) == 301


def test_another_trouble_is_said_at_once(coordination: Coordination, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "celery_coord")

    for error in ("ConnectionError: refused", "ReadOnlyError: a replica", "ConnectionError: refused"):
        coordination.notify(StoreFailed("asking for k", error))

    assert [record.message.rpartition(": ")[2] for record in caplog.records] == ["refused", "a replica"]
