"""Connections that stay with one user at a time, for the short acts of every run.

redis-py's pool asks the kernel about a connection each time it hands one out, and its client wraps each command in
layers that an act has no use for; together that costs more than the act. Here a connection goes back to the idle ones
only after an answer was read to its end. After anything else (an outage, a time limit in mid-request) it is closed:
the answer that may still come is nobody else's.

They are few, however many threads or greenlets ask: an act is short, and who finds all of them in use waits.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

import redis
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError as RedisConnectionError,
    MovedError,
    RedisError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
    TryAgainError,
)

#: One command, with its arguments.
Command = Sequence[str | float]

#: What redis-py 4 knows by name in its own client of a cluster alone.
_OF_A_CLUSTER: dict[str, type[RedisError]] = {
    "ASK": AskError,
    "MOVED": MovedError,
    "TRYAGAIN": TryAgainError,
    "CLUSTERDOWN": ClusterDownError,
}

#: How often one who waits for a connection looks by himself: a line that a signal cut short is not given back by hand.
_LOOK_EVERY = 0.05


class _Line:
    """One connection, made when it is first used."""

    __slots__ = ("__weakref__", "_client", "_opened")

    def __init__(self, client: Any) -> None:
        self._client = client
        self._opened: Any = None

    @property
    def address(self) -> tuple[str, int] | None:
        """Where it leads to; None while it is not made."""
        connection = self._opened and self._opened.connection
        return (connection.host, connection.port) if connection else None

    def exchange(self, commands: Sequence[Command]) -> list[Any]:
        if self._opened is None:
            self._opened = self._client.client()
        connection = self._opened.connection
        if len(commands) == 1:
            connection.send_command(*commands[0])
        else:
            connection.send_packed_command(connection.pack_commands(commands))
        return [_answer(connection) for _ in commands]

    def close(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            if opened.connection is not None:
                opened.connection.disconnect()
            opened.close()


class _Waiter:
    """One who waits for a line; what is handed to one who waits no more goes with it."""

    __slots__ = ("__weakref__", "handed")

    def __init__(self) -> None:
        self.handed: SimpleQueue[_Line] = SimpleQueue()


class Lines:
    """Connections to one server.

    Args:
        client: whose pool they come from.
        most: how many there are at most.
        timeout: how long to wait for a free one, in seconds; and within how long a failure is tried again.
    """

    def __init__(self, client: redis.Redis, *, most: int, timeout: float) -> None:
        self._client = client
        self._most = most
        self._timeout = timeout
        self._idle: deque[_Line] = deque()
        # Counted by what there is: a line that is dropped, on whatever way, leaves room for another.
        self._all: weakref.WeakSet[_Line] = weakref.WeakSet()
        # Entered as it is, in one step, since a signal may raise anywhere.
        self._lock = threading.RLock()
        self._waiters: deque[weakref.ref[_Waiter]] = deque()
        #: Where a connection has to lead to; None: anywhere.
        self.only: tuple[str, int] | None = None

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one go, and return their answers; an error that the server answers is an answer.

        If an answer was lost at once, as with a server that was restarted, it is asked for once more: acts are
        idempotent. If it did not come in time it is not, since whoever asks has waited for long enough.

        Raises:
            RedisError: there is no answer.
        """
        began = time.monotonic()
        try:
            return self.ask_once(*commands, until=began + self._timeout)
        except (RedisConnectionError, RedisTimeoutError):
            self.close()  # what ended this connection has probably ended the idle ones
            if time.monotonic() - began >= self._timeout:
                raise
            return self.ask_once(*commands, until=began + self._timeout)

    def ask_once(self, *commands: Command, until: float) -> list[Any]:
        """As `ask`, without a second try.

        Args:
            commands: to send.
            until: how long to wait for a connection, on the monotonic clock.
        """
        line = self._taken() or self._another(until)
        try:
            if self.only is not None and line.address not in (None, self.only):
                line.close()  # it is made anew
            answers = line.exchange(commands)
        except BaseException:
            line.close()
            self._all.discard(line)
            raise
        self._give_back(line)
        return answers

    def _taken(self) -> _Line | None:
        """A line that is free, or may be made; None: others wait, or there are enough."""
        with self._lock:
            if self._waiters:
                return None
            if self._idle:
                return self._idle.pop()
            return self._made()

    def _made(self) -> _Line | None:
        if len(self._all) >= self._most:
            return None
        line = _Line(self._client)
        self._all.add(line)
        return line

    def _another(self, until: float) -> _Line:
        """The next line that is given back: in order, so that nobody waits while others take turns."""
        waiter = _Waiter()
        with self._lock:
            self._waiters.append(weakref.ref(waiter))
        while True:
            try:
                return waiter.handed.get(timeout=max(0.0, min(until - time.monotonic(), _LOOK_EVERY)))
            except Empty:
                with self._lock:
                    if waiter.handed.empty() and (line := self._made() or (self._idle.pop() if self._idle else None)):
                        self._leave(waiter)
                        return line
                    if waiter.handed.empty() and time.monotonic() >= until:
                        self._leave(waiter)
                        raise RedisTimeoutError(f"all {self._most} connections of this kind are in use") from None

    def _leave(self, waiter: _Waiter) -> None:
        self._waiters = deque(each for each in self._waiters if each() not in (None, waiter))

    def _give_back(self, line: _Line) -> None:
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()()
                if waiter is not None:  # else a signal has ended its wait
                    waiter.handed.put(line)
                    return
            self._idle.append(line)

    def close(self) -> None:
        """Give all idle connections back."""
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                return
            line.close()
            self._all.discard(line)


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return in_words_of_a_cluster(error)


def in_words_of_a_cluster(error: ResponseError) -> RedisError:
    """An error that a server answers, by the name that redis-py's own client of a cluster has for it, if it has one."""
    code, _, rest = str(error).partition(" ")
    is_named = type(error) is not ResponseError or code not in _OF_A_CLUSTER
    return error if is_named else _OF_A_CLUSTER[code](rest)
