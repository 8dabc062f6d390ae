"""The end of a child process is told, once, by whichever way the system has."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from celery_coord.deaths import ByAsking, ByDescriptor, Deaths, deaths

ways = pytest.mark.parametrize("way", [ByDescriptor, ByAsking])


def child() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


@ways
def test_the_end_of_each_process_is_told_once(way: type[Deaths]) -> None:
    watched, first, second = way(), child(), child()
    for process in (first, second, first):
        watched.watch(process.pid)

    kill(first)
    assert watched.wait() == [first.pid]
    kill(second)
    assert watched.wait() == [second.pid]


@ways
def test_a_process_that_is_gone_already_is_told_of_at_once(way: type[Deaths]) -> None:
    watched, gone = way(), child()
    kill(gone)

    watched.watch(gone.pid)

    assert watched.wait() == [gone.pid]


@ways
def test_a_process_may_be_watched_again(way: type[Deaths]) -> None:
    """Its number may have been given to another."""
    watched, gone = way(), child()
    kill(gone)
    for _ in range(2):
        watched.watch(gone.pid)
        assert watched.wait() == [gone.pid]


def test_a_process_that_nobody_has_waited_for_yet_is_told_of_and_left_to_who_waits() -> None:
    """4. ... within a second: a pool may take several to notice."""
    watched, dead = ByDescriptor(), child()
    watched.watch(dead.pid)

    dead.send_signal(signal.SIGKILL)

    assert watched.wait() == [dead.pid]
    assert dead.wait() == -signal.SIGKILL


@ways
def test_a_process_that_is_watched_while_another_thread_waits_is_told_of(way: type[Deaths]) -> None:
    watched, idle, told = way(), child(), []
    watched.watch(idle.pid)
    waiter = threading.Thread(target=lambda: told.extend(watched.wait()))
    waiter.start()

    late = child()
    watched.watch(late.pid)
    kill(late)
    waiter.join()

    assert told == [late.pid]
    kill(idle)


def test_a_system_without_descriptors_of_processes_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(deaths(), ByDescriptor)

    def forbidden(pid: int) -> int:
        raise PermissionError(pid)

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    assert isinstance(deaths(), ByAsking)
    monkeypatch.delattr(os, "pidfd_open")
    assert isinstance(deaths(), ByAsking)


def test_a_process_of_somebody_else_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, gone = ByAsking(), child()
    kill(gone)
    watched.watch(1)
    watched.watch(gone.pid)

    def kill_as_nobody(pid: int, number: int) -> None:
        raise PermissionError if pid == 1 else ProcessLookupError

    monkeypatch.setattr(os, "kill", kill_as_nobody)

    assert watched.wait() == [gone.pid]


def test_a_number_that_is_given_anew_is_not_taken_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """1. Nobody that lives is told dead: the number of a descriptor that was closed may be another child's at once."""
    watched, dead, alive = ByDescriptor(), child(), child()
    close = os.close

    def close_and_watch(descriptor: int) -> None:
        close(descriptor)
        monkeypatch.setattr(os, "close", close)
        watched.watch(alive.pid)

    watched.watch(dead.pid)
    monkeypatch.setattr(os, "close", close_and_watch)
    kill(dead)

    assert watched.wait() == [dead.pid]
    assert watched.wait(timeout=0.1) == []
    kill(alive)
    assert watched.wait() == [alive.pid]


def test_a_child_that_could_not_be_watched_can_be_watched_later(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, process = ByDescriptor(), child()
    opened = os.pidfd_open

    def none_left(pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", none_left)
    with pytest.raises(OSError, match="Too many open files"):
        watched.watch(process.pid)
    monkeypatch.setattr(os, "pidfd_open", opened)
    watched.watch(process.pid)
    kill(process)

    assert watched.wait() == [process.pid]


@ways
def test_a_wait_may_have_an_end(way: type[Deaths]) -> None:
    watched, process = way(), child()
    watched.watch(process.pid)

    assert watched.wait(timeout=0.05) == []
    kill(process)
