"""What goes wrong is told, and does not flood: one line for the same trouble in ten seconds, with a count."""

from __future__ import annotations

import logging

import pytest
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from celery_coord import events
from celery_coord.errors import NewerLayout
from celery_coord.stores.redis.trouble import Trouble
from celery_coord.testing import FakeClock

AWAY = RedisConnectionError("refused")
FAILED = events.StoreFailed("asking for k", "ConnectionError: refused")


@pytest.fixture(autouse=True)
def all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="celery_coord")


def test_the_same_trouble_is_one_line_in_ten_seconds_and_says_for_how_many_it_stands(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = events.Log(clock)

    for _ in range(500):
        log(FAILED)
    clock.advance(10)
    log(FAILED)
    clock.advance(10)
    log(FAILED)

    first, second, third = caplog.messages
    assert first == third == "the store failed while asking for k: ConnectionError: refused"
    assert second == f"{first} (and 499 more like it in the last 10 s)"


def test_another_trouble_is_another_line(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    log = events.Log(clock)

    for doing, error in (
        ("asking for k", "ConnectionError: node-1 refused"),
        ("asking for k", "ConnectionError: node-2 refused"),
        ("settling k", "ConnectionError: node-1 refused"),
        ("asking for l", "ConnectionError: node-1 refused"),
        ("asking for k", ""),
        ("asking for k", ""),
    ):
        log(events.StoreFailed(doing, error))

    assert [message.removeprefix("the store failed while ") for message in caplog.messages] == [
        "asking for k: ConnectionError: node-1 refused",
        "asking for k: ConnectionError: node-2 refused",
        "settling k: ConnectionError: node-1 refused",
        "asking for k: ",
    ]


def test_a_later_layout_is_one_trouble_however_many_keys_it_has(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = events.Log(clock)

    for number in range(300):
        log(events.StoreFailed(f"asking for k{number}", str(NewerLayout(f"k{number}", 2, 1))))

    assert len(caplog.messages) == 1


def test_many_troubles_at_once_do_not_make_the_last_ones_news(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What is remembered of them is bounded, and what was said longest ago is forgotten first."""
    log = events.Log(clock)
    for number in range(1000):
        clock.advance(0.001)
        log(events.StoreFailed("asking for k", f"ConnectionError: node-{number} refused"))
    said = len(caplog.messages)

    for number in range(960, 1000):
        log(events.StoreFailed("asking for k", f"ConnectionError: node-{number} refused"))

    assert said == len(caplog.messages) == 1000
    assert len(log._said) <= 100


def test_a_store_that_comes_and_goes_floods_no_log(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    log = events.Log(clock)

    for _ in range(100):
        log(FAILED)
        log(events.StoreRecovered(0.1, 1))
        clock.advance(0.15)

    assert len(caplog.messages) <= 6


def test_what_comes_after_the_store_has_recovered_is_news(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    """The last line of the log is what is so."""
    log = events.Log(clock)

    for event in (FAILED, events.StoreRecovered(1.5, 1), FAILED):
        log(event)

    assert caplog.messages[1] == "the store answers again after 1.5 s and 1 failures"
    assert caplog.messages[2] == caplog.messages[0]


def test_runs_that_wait_for_the_store_are_counted_and_those_that_wait_for_a_run_are_named(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = events.Log(clock)

    for number in range(50):
        for why in ("store", "layout", "redelivered"):
            log(events.TaskDeferred("refresh", f"id-{number}", "k", why, 1.5))

    said = [message.partition("(")[2].partition(")")[0] for message in caplog.messages]
    assert [said.count(why) for why in ("store", "layout", "redelivered")] == [1, 1, 50]


def test_a_trouble_of_writing_is_over_when_something_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes no writes still answers those who look: that is no end of it."""
    over: list[tuple[float, int]] = []
    now = 100.0
    monkeypatch.setattr("celery_coord.stores.redis.trouble.time.monotonic", lambda: now)
    trouble = Trouble(lambda seconds, failures: over.append((seconds, failures)))

    trouble.failed(AWAY, writes=False)
    trouble.failed(AWAY, writes=True)
    now = 132.0
    trouble.answered(writes=False)
    assert (over, trouble.lasts) == ([], True)
    trouble.answered(writes=True)
    trouble.answered(writes=True)

    assert (over, trouble.lasts) == ([(32.0, 2)], False)


def test_a_trouble_of_those_who_look_is_over_when_one_can() -> None:
    over: list[int] = []
    trouble = Trouble(lambda _, failures: over.append(failures))

    trouble.failed(AWAY, writes=False)
    trouble.answered(writes=False)

    assert (over, trouble.lasts) == ([1], False)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ReadOnlyError("You can't write against a read only replica."), True),
        (ResponseError("MISCONF Redis is configured to save RDB snapshots"), True),
        (ResponseError("OOM command not allowed when used memory > 'maxmemory'."), False),
        (ResponseError("WRONGTYPE Operation against a key"), False),
        (NoPermissionError("this user has no permissions"), False),
    ],
)
def test_what_is_wrong_with_one_act_is_not_over_with_the_next_one(error: RedisError, *, counts: bool) -> None:
    """A renewal needs no room where the memory is full: that it was answered says nothing of who asks for a lease."""
    trouble = Trouble(lambda *_: None)

    trouble.failed(error, writes=True)

    assert trouble.lasts is counts
