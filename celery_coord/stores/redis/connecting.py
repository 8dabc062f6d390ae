"""Connecting takes no longer than it may, also where nobody answers what a name stands for.

The system's resolver has time limits of its own. Where no name server answers it may take half a minute, in which who
asked can be neither interrupted nor served otherwise. So a host's name is looked up in a thread of its own before
redis-py looks it up to connect, and who wants to connect waits for that no longer than for a connection. What is left
of that time is for all addresses of the name together: redis-py would give it to each.

And a connection is made wholly, or not at all: an exception may come in the midst of it (a time limit, a greenlet that
is killed), and the answer that is still on its way would be taken for that to what the next one asks.

Not promised: a resolver that answers us, and falls silent before it answers redis-py.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading
import time
from typing import Any

import redis
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    RedisError,
    TimeoutError as RedisTimeoutError,
)
from redis.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection

from celery_coord.stores.redis.urls import Host

#: What there is to connect to an address in, at the least, in seconds.
_LEAST = 0.05


class _Lookup:
    """One question to the resolver, for all who want to know at that time."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._answered = threading.Event()
        self._addresses = 0
        self._why_none = ""

    @property
    def is_over(self) -> bool:
        """Whether there is an answer."""
        return self._answered.is_set()

    def begin(self) -> None:
        """Ask.

        Raises:
            RuntimeError: this process begins no more threads.
        """
        threading.Thread(target=self._ask, name="celery_coord-lookup", daemon=True).start()

    def _ask(self) -> None:
        try:
            self._addresses = len(socket.getaddrinfo(self._host, None, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as error:
            self._why_none = str(error)
        finally:
            self._answered.set()

    def wait(self, timeout: float) -> int:
        """How many addresses the name has.

        Raises:
            TimeoutError: redis-py's; nobody has answered in time.
            ConnectionError: redis-py's; it has none, or the resolver has waited for long enough to say so.
        """
        if not self._answered.wait(timeout):
            raise RedisTimeoutError(f"the resolver did not say in {timeout:g} s what {self._host} stands for")
        if not self._addresses:
            raise RedisConnectionError(f"the resolver does not know what {self._host} stands for: {self._why_none}")
        return self._addresses


#: The last question for each name. Two at once would do no harm, so there is no lock for a signal to meet.
_lookups: dict[str, _Lookup] = {}
os.register_at_fork(after_in_child=_lookups.clear)  # the threads that ask are the parent's


def look_up(host: str, timeout: float) -> int:
    """Wait until the resolver knows a name.

    Args:
        host: the name, or an address, which is nothing to ask for.
        timeout: for how long, in seconds.

    Returns:
        How many addresses it has; 1 where that cannot be said.

    Raises:
        TimeoutError: redis-py's; it took longer.
        ConnectionError: redis-py's; it has none.
    """
    if _is_address(host):
        return 1
    lookup = _lookups.get(host)
    if lookup is None or lookup.is_over:
        lookup = _Lookup(host)
        try:
            lookup.begin()
        except RuntimeError:  # as it ends
            return 1
        _lookups[host] = lookup
    return lookup.wait(timeout)


def connected(host: Host, timeout: float) -> socket.socket:
    """A plain connection, to see who is there.

    Raises:
        OSError: there is none in time.
    """
    try:
        addresses = look_up(host[0], timeout)
    except RedisError as error:
        raise OSError(str(error)) from None
    return socket.create_connection(host, max(_LEAST, timeout / addresses))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class _Whole:
    """What is added to a connection of redis-py's."""

    def connect(self: Any) -> None:
        """As redis-py's; what a time limit cuts short is not left half connected, with an answer on its way."""
        redis_pys: Any = super()
        try:
            redis_pys.connect()
        except BaseException:
            self.disconnect()
            raise


class _InTime(_Whole):
    """What is added to one over a network."""

    def _connect(self: Any) -> Any:
        redis_pys: Any = super()
        timeout = self.socket_connect_timeout
        if timeout is None:
            return redis_pys._connect()  # noqa: SLF001  where it looks up and connects
        began = time.monotonic()
        addresses = look_up(self.host, timeout)
        self.socket_connect_timeout = max(_LEAST, (timeout - (time.monotonic() - began)) / addresses)
        try:
            return redis_pys._connect()  # noqa: SLF001
        finally:
            self.socket_connect_timeout = timeout


class _Connection(_InTime, redis.Connection):
    pass


class _SSLConnection(_InTime, redis.SSLConnection):
    pass


class _SocketConnection(_Whole, redis.UnixDomainSocketConnection):
    pass


class _ManagedConnection(_InTime, SentinelManagedConnection):
    pass


class _ManagedSSLConnection(_InTime, SentinelManagedSSLConnection):
    pass


_IN_TIME: dict[type[Any], type[Any]] = {
    redis.Connection: _Connection,
    redis.SSLConnection: _SSLConnection,
    redis.UnixDomainSocketConnection: _SocketConnection,
    SentinelManagedConnection: _ManagedConnection,
    SentinelManagedSSLConnection: _ManagedSSLConnection,
}


def in_time(pool: Any) -> Any:
    """A pool of redis-py's, whose connections are made in time, or not at all."""
    pool.connection_class = _IN_TIME.get(pool.connection_class, pool.connection_class)
    return pool
