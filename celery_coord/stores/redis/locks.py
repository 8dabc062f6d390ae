"""Locks of python-redis-lock, for code outside Celery, each of whose requests ends in time.

python-redis-lock knows no time limit of its own, and waits for a key with one command, for as long as the lock may last
or the caller wants to wait. Here that is cut into short ones: so no answer takes longer than one may, and a server that
stands still is found out while somebody waits. And its lock ends where one renewal is not answered, or is refused as a
read-only server does it; here it is asked for again, as long as the key may still be held.

In a cluster the node is asked that has the key, wherever that goes. What may have been done, though there was no
answer, is not asked for again: who has taken a key would be refused it. redis-py's own error tells the caller.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis_lock
from redis.commands import CoreCommands
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    RedisError,
    ResponseError,
    TimeoutError as RedisTimeoutError,
)

from celery_coord.stores.redis.cluster import Cluster
from celery_coord.stores.redis.lines import Command, in_words_of_a_cluster
from celery_coord.stores.redis.servers import Server

#: Sends a command, as redis-py's `execute_command` does. The keyword ``wait`` says for how long it blocks, in seconds.
Execute = Callable[..., Any]

# Its types are for redis-py's own clients.
_Commands: Any = CoreCommands
_AWAY = (RedisConnectionError, RedisTimeoutError)
#: Before a renewal that was not answered is asked for again, in seconds.
_PAUSE = 0.5
#: For how long one command blocks, in seconds; no time at all would be one without an end.
_LEAST_WAIT, _LONGEST_WAIT = 0.01, 1.0
#: By what redis-py calls them.
_SCRIPTS: dict[str, str] = {
    hashlib.sha1(source, usedforsecurity=False).hexdigest(): source.decode()
    for source in (redis_lock.UNLOCK_SCRIPT, redis_lock.EXTEND_SCRIPT, redis_lock.RESET_SCRIPT)
}


class Lock(redis_lock.Lock):  # type: ignore[misc]  # it has no types
    """A `redis_lock.Lock` that a stall of the server does not keep from being renewed after it."""

    _lock_renewal_thread: threading.Thread | None

    @classmethod
    def register_scripts(cls, redis_client: Any) -> None:
        """Where all locks look for them: python-redis-lock would leave those of the first class to ask without."""
        redis_lock.Lock.register_scripts(redis_client)

    def extend(self, expire: int | None = None) -> None:
        """As python-redis-lock has it; by the thread that renews it again and again, while the lock may still last."""
        until = time.monotonic() + (self._expire or 0)
        is_over = False
        while not is_over:
            try:
                super().extend(expire)
                is_over = True
            except RedisError:
                if self._lock_renewal_thread is not threading.current_thread() or time.monotonic() >= until:
                    raise
                is_over = self._lock_renewal_stop.wait(_PAUSE)

    def _start_lock_renewer(self) -> None:
        # The last lock was lost, whether the thread that renewed it has noticed that or not.
        self._stop_lock_renewer()
        self._lock_renewal_thread = None
        super()._start_lock_renewer()


class LockClient(_Commands):  # type: ignore[misc]
    """What a lock takes for redis-py's client; it knows no other commands than those on keys, and no other scripts.

    Args:
        execute: sends a command.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As a client of redis-py's; what blocks does so in many short waits."""
        if args[0] != "BLPOP":
            return self._execute(*args, **options)
        *command, seconds = args
        until = time.monotonic() + (seconds or math.inf)
        while True:
            left = until - time.monotonic()
            wait = max(_LEAST_WAIT, min(left, _LONGEST_WAIT))
            found = self._execute(*command, wait, wait=wait, **options)
            if found or left <= _LONGEST_WAIT:
                return found

    def evalsha(self, sha: str, numkeys: int, *keys_and_args: Any) -> Any:
        """Run a script of python-redis-lock's, wherever the key may go: its source is sent along."""
        return self.eval(_SCRIPTS[sha], numkeys, *keys_and_args)


def on_server(server: Server) -> Execute:
    """Sends commands to a server, or to the one that Sentinel names by then."""
    client: Any = server.client

    def execute(*args: Any, wait: float = 0.0, **options: Any) -> Any:
        server.follow()  # then redis-py's pool has no connection to another one any more
        with client.client() as line:
            return _answer(line, *args, wait=wait, **options)

    return execute


class NoAnswerError(Exception):
    """What was asked for may have been done."""


def on_node_of(key: str, cluster: Cluster, *, timeout: float) -> Execute:
    """Sends commands to the node of a cluster that has a key.

    Args:
        key: which all commands are for.
        cluster: who knows the node.
        timeout: for how long a command is tried, in seconds.
    """

    def execute(*args: Any, wait: float = 0.0, **options: Any) -> Any:
        def exchange(node: Server, before: Sequence[Command]) -> Any:
            client: Any = node.client
            with client.client() as line:  # it is connected: what fails before this was not done
                try:
                    for command in before:
                        line.execute_command(*command)
                    return _answer(line, *args, wait=wait, **options)
                except _AWAY as error:
                    raise NoAnswerError from error
                except ResponseError as error:
                    raise in_words_of_a_cluster(error) from None

        try:
            return cluster.tried(key, exchange, until=time.monotonic() + wait + timeout)
        except NoAnswerError as unanswered:
            cluster.doubt()
            raise unanswered.__cause__ or unanswered from None

    return execute


def _answer(line: Any, *args: Any, wait: float, **options: Any) -> Any:
    """The answer to a command on one connection; the time of an answer begins when the command blocks no more."""
    connection = line.connection
    try:
        if not wait:
            return line.execute_command(*args, **options)
        connection.send_command(*args)
        connection.can_read(wait)
        return connection.read_response()
    except ResponseError:  # which is an answer
        raise
    except BaseException:
        connection.disconnect()  # what may still come is nobody else's
        raise


__all__ = ["Lock", "LockClient", "on_node_of", "on_server"]
