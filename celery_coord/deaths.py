"""Tells of the end of child processes, at once, and without taking it from who waits for them.

A pool's own way to notice a dead child may take seconds, and some deaths it tells nobody of. On Linux a descriptor of
the process says it within milliseconds. Elsewhere we ask whether there is such a process, a few times a second; there
a child counts as dead once the pool has noticed.
"""

from __future__ import annotations

import os
import select
import time
from typing import Protocol

_ASK_EVERY = 0.2


class Deaths(Protocol):
    """Processes that are watched until they end."""

    def watch(self, pid: int) -> None:
        """Tell of the end of a process as well. It may be dead already, and may be watched already."""
        ...

    def wait(self, timeout: float | None = None) -> list[int]:
        """Block until some of them have ended; each is told of once.

        Args:
            timeout: for how long at most, in seconds; None: for ever.
        """
        ...


class ByDescriptor:
    """What Linux offers: a descriptor of a process, which can be read from when that has ended.

    Raises:
        OSError: on construction, where the system has no such thing.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._pids: dict[int, int] = {}
        self._watched: set[int] = set()
        os.close(os.pidfd_open(os.getpid()))  # a sandbox may forbid it

    def watch(self, pid: int) -> None:
        """See `Deaths.watch`."""
        if pid in self._watched:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            descriptor = _that_has_ended()
        self._pids[descriptor] = pid
        self._watched.add(pid)
        self._epoll.register(descriptor, select.EPOLLIN)

    def wait(self, timeout: float | None = None) -> list[int]:
        """See `Deaths.wait`."""
        ended = []
        for descriptor, _ in self._epoll.poll(timeout):
            self._epoll.unregister(descriptor)
            pid = self._pids.pop(descriptor)
            self._watched.discard(pid)
            ended.append(pid)
            os.close(descriptor)  # last: from here on another thread may be given its number
        return ended


class ByAsking:
    """What every system offers."""

    def __init__(self) -> None:
        self._pids: set[int] = set()

    def watch(self, pid: int) -> None:
        """See `Deaths.watch`."""
        self._pids.add(pid)

    def wait(self, timeout: float | None = None) -> list[int]:
        """See `Deaths.wait`."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            ended = [pid for pid in tuple(self._pids) if not _lives(pid)]
            if ended or (until is not None and time.monotonic() >= until):
                self._pids.difference_update(ended)
                return ended
            time.sleep(_ASK_EVERY)


def deaths() -> Deaths:
    """The best way that this system has."""
    try:
        return ByDescriptor()
    except (AttributeError, OSError):
        return ByAsking()


def _that_has_ended() -> int:
    """A descriptor that can be read from at once, as that of a process that has ended."""
    ours, other = os.pipe()
    os.close(other)
    return ours


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
