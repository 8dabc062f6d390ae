"""Every act is tried as a process starts, on a key of its own: what is wrong for good is found then, not by a run."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import uuid4

from redis.exceptions import (
    ConnectionError as RedisConnectionError,
    RedisError,
    TimeoutError as RedisTimeoutError,
)

from celery_coord.errors import ConfigurationError, StoreError
from celery_coord.lease import Owner
from celery_coord.stores.redis.acts import ACQUIRE, ERASE, RECORD, RENEW, SETTLE
from celery_coord.stores.redis.address import Address
from celery_coord.stores.redis.diagnosis import refuse_for_ever, store_error
from celery_coord.stores.redis.examine import examine
from celery_coord.stores.redis.names import LAYOUT, Names
from celery_coord.stores.redis.servers import Servers

#: Nobody answers.
_AWAY = (RedisConnectionError, RedisTimeoutError)


class Trial:
    """The trial of one set-up.

    Args:
        servers: those who keep the keys.
        address: of them.
        namespace: what the keys of this application begin with.
        min_replicas: how many replicas have to confirm what is written.
    """

    def __init__(self, servers: Servers, address: Address, *, namespace: str, min_replicas: int) -> None:
        self._servers = servers
        self._address = address
        self._namespace = namespace
        self._min_replicas = min_replicas

    def doubts(self) -> list[str]:
        """What is not as it should be, and may be so for now or on purpose; in words.

        Raises:
            ConfigurationError: the set-up cannot work, and says what to write.
            StoreError: the servers do not answer, or not as they should, for now.
        """
        try:
            self._try_every_act()
            return self._examine()
        except RedisError as error:
            doubts: list[str] = []
            if not isinstance(error, _AWAY):
                with suppress(RedisError):
                    doubts = self._examine()  # what it is says more than what it answered
            refuse_for_ever(error, self._address)
            raise StoreError("; ".join([str(store_error(error)), *doubts])) from error
        except ConfigurationError:
            raise
        except (ValueError, TypeError, AttributeError) as error:
            # What redis-py meets only as it connects.
            msg = (
                f"coord_url or coord_transport_options has what redis-py cannot use ({type(error).__name__}): "
                "write coord_url = 'redis://127.0.0.1:6379/0'"
            )
            raise ConfigurationError(msg) from None

    def _examine(self) -> list[str]:
        doubts = []
        for client in self._servers.primaries():
            doubts += examine(
                client,
                min_replicas=self._min_replicas,
                is_cluster=self._address.is_cluster,
                is_named=not (self._address.is_cluster or self._address.master_name),
            )
            if self._address.is_cluster:
                self._may_be_redirected(client)
        return doubts

    @staticmethod
    def _may_be_redirected(client: Any) -> None:
        """That right would not be missed before a slot moves."""
        client.execute_command("ASKING")

    def _try_every_act(self) -> None:
        """An account may be kept from what is needed later, and a server may take no writes."""
        owner = Owner.new("check")
        name = Names(self._namespace, f"check:{uuid4().hex}")
        try:
            self._act(owner, name)
        except _AWAY:
            raise  # each act more would be waited for; what was made ends by itself
        except RedisError:
            self._remove(owner, name)
            raise
        self._remove(owner, name)

    def _act(self, owner: Owner, name: Names) -> None:
        done = name.done(owner.run)
        arguments = (LAYOUT, str(owner), owner.run, owner.generation, 1000, "", 1, 1000)
        ACQUIRE.run(self._servers, (name.lock, name.cooldown, name.lease, done, name.layout), *arguments)
        RECORD.run(self._servers, (name.lock, name.records), str(owner), "check", "1", "", 0, 1, 1000, "0")
        ERASE.run(self._servers, (name.lock, name.records), str(owner), "check")
        RENEW.run(self._servers, (name.lock, name.lease, done), str(owner), 1000, 1000)
        ends = (name.lock, name.cooldown, name.signal, done)
        SETTLE.run(self._servers, ends, str(owner), owner.generation, 1000, 1000, 1, 1)
        self._servers.wait(name.signal, ("BLPOP", name.signal, 0.01))
        self._servers.ask(name.lease, ("DEL", name.lease))

    def _remove(self, owner: Owner, name: Names) -> None:
        for made in (name.lock, name.cooldown, name.lease, name.done(owner.run)):
            with suppress(RedisError):
                self._servers.ask(made, ("DEL", made))
