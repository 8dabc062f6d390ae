"""A request to end waits while something must not be cut in two."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from celery_coord.undisturbed import Undisturbed


@pytest.fixture
def came() -> Iterator[list[int]]:
    """The signals that came through."""
    numbers: list[int] = []
    before = {
        number: signal.signal(number, lambda number, frame: numbers.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    yield numbers
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def undisturbed(came: list[int]) -> Iterator[Undisturbed]:
    made = Undisturbed()
    made.install()
    made.install()
    yield made
    made.remove()
    made.remove()


def test_a_signal_that_disturbs_nothing_goes_through(undisturbed: Undisturbed, came: list[int]) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)

    assert came == [signal.SIGINT, signal.SIGTERM]


def test_a_signal_that_comes_meanwhile_strikes_at_the_end_and_once(undisturbed: Undisturbed, came: list[int]) -> None:
    undisturbed.begin()
    signal.raise_signal(signal.SIGTERM)
    assert came == []

    undisturbed.end()
    undisturbed.end()

    assert came == [signal.SIGTERM]


def test_a_second_signal_goes_through_at_once(undisturbed: Undisturbed, came: list[int]) -> None:
    """Who asks twice means it."""
    undisturbed.begin()
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGINT)

    assert came == [signal.SIGINT]


def test_a_signal_does_not_wait_for_what_hangs(
    undisturbed: Undisturbed, came: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("celery_coord.undisturbed._PATIENCE", 0.01)
    undisturbed.begin()

    signal.raise_signal(signal.SIGTERM)
    for _ in range(1000):
        if came:
            break
        threading.Event().wait(0.01)

    assert came == [signal.SIGTERM]


def test_what_was_there_before_is_there_again(came: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    made = Undisturbed()
    made.install()
    assert signal.getsignal(signal.SIGTERM) != before

    made.remove()

    assert signal.getsignal(signal.SIGTERM) is before


def test_a_default_handler_ends_the_process_as_it_would(came: list[int]) -> None:
    import os

    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        made = Undisturbed()
        made.install()
        signal.raise_signal(signal.SIGTERM)
        os._exit(0)

    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_outside_of_the_main_thread_there_is_nothing_to_hold_back(came: list[int]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    made = Undisturbed()

    thread = threading.Thread(target=made.install)
    thread.start()
    thread.join()

    assert signal.getsignal(signal.SIGTERM) is before
