"""Sentinels, and what they know."""

from __future__ import annotations

from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError, TimeoutError as RedisTimeoutError
from redis.sentinel import MasterNotFoundError, Sentinel

from celery_coord.stores.redis.urls import Host


class Watchers(Sentinel):
    """Sentinels, asked as their documentation has it.

    What redis-py reads, the state of the masters, names the old one for as long as a fail-over goes on: for seconds in
    which that takes writes, and loses them.
    """

    def discover_master(self, service_name: str) -> Host:
        """Where the primary is, as the first Sentinel has it that answers.

        Raises:
            MasterNotFoundError: none does, or knows.
        """
        if self.min_other_sentinels:  # which only the state of the masters tells
            found: Host = super().discover_master(service_name)  # type: ignore[no-untyped-call]
            return found
        causes = []
        for sentinel in self.sentinels:
            try:
                address: Any = sentinel.sentinel_get_master_addr_by_name(service_name)
            except (RedisConnectionError, RedisTimeoutError) as error:
                causes.append(f"{type(error).__name__}({error})")
                continue
            if address:
                # A new list: other threads are on their way through the old one.
                self.sentinels = [sentinel, *(other for other in self.sentinels if other is not sentinel)]
                return str(address[0]), int(address[1])
        why = f" : {', '.join(causes)}" if causes else ""
        raise MasterNotFoundError(f"No master found for {service_name!r}{why}")
