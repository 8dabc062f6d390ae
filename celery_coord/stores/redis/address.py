"""Where the servers are, and how to connect to them."""

from __future__ import annotations

import inspect
import os
import socket
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import RedisError
from redis.retry import Retry

from celery_coord.errors import ConfigurationError
from celery_coord.stores.redis.connecting import in_time
from celery_coord.stores.redis.urls import EXAMPLES, TLS, Host, parsed
from celery_coord.stores.redis.watchers import Watchers

#: A server that vanished without a word is found out within a minute or so, also by a connection that is idle.
_KEEPALIVE: dict[str, Any] = {"socket_keepalive": True}
if hasattr(socket, "TCP_KEEPIDLE"):
    _KEEPALIVE["socket_keepalive_options"] = {
        socket.TCP_KEEPIDLE: 30,
        socket.TCP_KEEPINTVL: 10,
        socket.TCP_KEEPCNT: 3,
    }
#: What newer releases tell and ask a server of themselves, each in a round trip of a new connection.
_NO_GREETINGS: dict[str, Any] = {}
_PARAMETERS = inspect.signature(AbstractConnection.__init__).parameters
if "driver_info" in _PARAMETERS:
    _NO_GREETINGS["driver_info"] = None
elif "lib_name" in _PARAMETERS:
    _NO_GREETINGS |= {"lib_name": None, "lib_version": None}
if "maint_notifications_config" in _PARAMETERS:
    from redis.maint_notifications import MaintNotificationsConfig

    _NO_GREETINGS["maint_notifications_config"] = MaintNotificationsConfig(enabled=False)
#: redis-py 8 bounds a pool by 100; `Lines` has a bound of its own.
_NO_BOUND = 2**31


@dataclass(frozen=True)
class Address:
    """Where the servers are, and how to connect.

    Attributes:
        hosts: of the servers, or of the Sentinels; empty for a Unix socket.
        options: of a connection, in redis-py's words.
        timeout: the longest wait for a connection and for an answer, in seconds.
        is_cluster: whether the hosts are nodes of a cluster.
        master_name: what Sentinel calls the server; empty: there is no Sentinel.
        sentinel_options: of a connection to a Sentinel.
        min_other_sentinels: how many others a Sentinel must know to be believed.
    """

    hosts: tuple[Host, ...]
    options: Mapping[str, Any] = field(repr=False)  # a password may be among them
    timeout: float
    is_cluster: bool = False
    master_name: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    min_other_sentinels: int = 0

    @classmethod
    def of(cls, url: str, options: Mapping[str, Any], *, timeout: float) -> Address:
        """Read a URL.

        Args:
            url: as in the setting ``coord_url``.
            options: as in ``coord_transport_options``. What the URL says counts for more.
            timeout: the longest wait for a connection and for an answer, in seconds.

        Raises:
            ConfigurationError: the URL is malformed, or redis-py refuses an option. The message repeats no password.
        """
        scheme = url.partition("://")[0]
        found = parsed(url, options)
        sentinel = found.pop("sentinel_kwargs", None) or {}
        others = str(found.pop("min_other_sentinels", 0))
        if not isinstance(sentinel, Mapping) or not others.isdecimal():
            msg = "sentinel_kwargs is a dictionary, and min_other_sentinels a number: write 'sentinel_kwargs': {...}"
            raise ConfigurationError(msg)
        named = {name: found.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        # As for Celery: TLS of the servers is none of the Sentinels, where nobody says so.
        over_tls = scheme == "sentinels" or bool(sentinel.get(TLS))
        tls = {name: value for name, value in found.items() if name.startswith("ssl_")} if over_tls else {}
        master_name = found.pop("master_name", "")
        address = cls(
            hosts=found.pop("hosts"),
            # Left over from a broker behind Sentinels it says nothing of a server that is named itself.
            master_name=master_name if scheme.startswith("sentinel") else "",
            min_other_sentinels=int(others),
            options=found,
            timeout=timeout,
            is_cluster=scheme.endswith("+cluster"),
            sentinel_options={**tls, TLS: over_tls, **sentinel, **{k: v for k, v in named.items() if v is not None}},
        )
        address._refuse_what_cannot_work(scheme)
        return address

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.options.get("connection_class") is redis.SSLConnection

    def client(self, host: Host | None = None) -> redis.Redis:
        """A client of one server, or of the one that Sentinel names; it connects when it is first used.

        Args:
            host: the server; None: the first host, or the one that Sentinel names.
        """
        if self.master_name:
            options = self._options()
            options.pop("connection_class", None)
            watchers = self._sentinel()
            master: redis.Redis = watchers.master_for(self.master_name, ssl=self.is_tls, **options)
            _pools.add(in_time(master.connection_pool))
            return master
        return self.server(host or next(iter(self.hosts), None))

    def server(self, host: Host | None) -> redis.Redis:
        """A client of what stands there, whatever that is; None: at the socket."""
        options = self._options()
        if host:
            options["host"], options["port"] = host
        pool = in_time(redis.ConnectionPool(**options))
        _pools.add(pool)
        return redis.Redis(connection_pool=pool)

    def is_unknown_to_sentinels(self) -> bool:
        """Whether all Sentinels that answer do not know the name of the server: it is not away, it is another."""
        answers = []
        for sentinel in self._sentinel().sentinels:
            with suppress(RedisError):
                answers.append(sentinel.sentinel_get_master_addr_by_name(self.master_name))
        return bool(answers) and not any(answers)

    def _options(self) -> dict[str, Any]:
        return {
            **(_KEEPALIVE if self.hosts else {}),
            **self.options,
            "decode_responses": True,
            "encoding_errors": "replace",
            "socket_timeout": self.timeout,
            "socket_connect_timeout": self.timeout,
            "max_connections": _NO_BOUND,
            "retry": Retry(NoBackoff(), 0),  # `Lines` asks once more, and the keeper tries again
            **_NO_GREETINGS,
        }

    def _sentinel(self) -> Any:
        """The Sentinels; asking all of them in turn takes no longer than one server may."""
        each = max(0.1, self.timeout / len(self.hosts))
        bounds = {
            "socket_timeout": each,
            "socket_connect_timeout": each,
            "retry": Retry(NoBackoff(), 0),
            "decode_responses": True,
        }
        made: Any = Watchers
        watchers = made(
            list(self.hosts),
            min_other_sentinels=self.min_other_sentinels,
            sentinel_kwargs={**self.sentinel_options, **bounds},
        )
        _pools.update(in_time(sentinel.connection_pool) for sentinel in watchers.sentinels)
        return watchers

    def _refuse_what_cannot_work(self, scheme: str) -> None:
        if scheme in ("sentinel", "sentinels") and not self.master_name:
            msg = (
                "coord_url names Sentinels, and not the server that they watch: write "
                f"coord_url = '{EXAMPLES['sentinel']}', or coord_transport_options = {{'master_name': 'mymaster'}}"
            )
            raise ConfigurationError(msg)
        if self.is_cluster and self.options.get("db"):
            msg = "coord_url names a database, and a cluster has none: write coord_url = 'redis+cluster://node-1:6379'"
            raise ConfigurationError(msg)
        try:
            pool: Any = self.client().connection_pool
            pool.connection_class(**pool.connection_kwargs)  # connects to nothing, and refuses what it does not know
        except (ValueError, TypeError, RedisError) as error:
            msg = (
                f"coord_url or coord_transport_options has an option that redis-py does not take "
                f"({type(error).__name__}): write coord_url = 'redis://127.0.0.1:6379/0'"
            )
            raise ConfigurationError(msg) from None


#: The pools of this process.
_pools: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork() -> None:
    """A child closes its copies of the parent's sockets, which live on: else the server would not see the parent end.

    Not promised: one that was being opened at that instant.
    """
    for pool in list(_pools):
        for connection in [*pool._available_connections, *pool._in_use_connections]:  # noqa: SLF001  no other way
            connection.disconnect()


os.register_at_fork(after_in_child=_after_fork)
