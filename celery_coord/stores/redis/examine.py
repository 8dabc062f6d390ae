"""Whether a server is what a store needs: asked as a process starts, so that a wrong set-up is found then."""

from __future__ import annotations

import re
from typing import Any, NoReturn

import redis
from redis.exceptions import NoPermissionError

from celery_coord.errors import ConfigurationError

#: The oldest server that is tested.
OLDEST = (6, 2)

#: What to write instead.
SERVER = "coord_url = 'redis://127.0.0.1:6379/0'"
CLUSTER = "coord_url = 'redis+cluster://node-1:6379,node-2:6379'"
SENTINEL = "coord_url = 'sentinel://sentinel-1:26379,sentinel-2:26379/0?master_name=mymaster'"


def examine(client: redis.Redis, *, min_replicas: int, is_cluster: bool, is_named: bool) -> list[str]:
    """Ask a server what it is.

    Args:
        client: of it.
        min_replicas: how many replicas it has to have.
        is_cluster: whether it should be the node of a cluster.
        is_named: whether the URL names it, and not somebody who knows better next time.

    Returns:
        What is not as it should be, and may be so for now or on purpose; in words.

    Raises:
        ConfigurationError: it cannot serve.
        RedisError: it does not answer.
    """
    try:
        said: dict[str, Any] = client.info()
    except NoPermissionError:
        return []  # an account may be kept from asking; what it may do is found when it does it
    version = tuple(int(part) for part in re.findall(r"\d+", str(said.get("redis_version", "")))[:2])
    mode = said.get("redis_mode")
    if mode == "sentinel":
        refuse(f"names a Sentinel, not a server: write {SENTINEL}")
    if version and version < OLDEST:
        refuse(
            f"names a server that is too old: it is a Redis {dotted(version)}, "
            f"and Redis {dotted(OLDEST)} or Valkey is needed"
        )
    if mode == "cluster" and not is_cluster:
        refuse(f"names one node of a cluster: write {CLUSTER}")
    if said.get("role") == "slave" and is_named:
        refuse("names a replica, which takes no writes: name its primary, or the Sentinels that know which one it is")
    doubts = []
    policy = said.get("maxmemory_policy", "noeviction")
    if said.get("maxmemory") and policy != "noeviction":
        doubts.append(
            f"the store's maxmemory-policy is {policy}: when its memory is full it forgets leases and quiet periods, "
            "and two runs may hold one key: set it to noeviction"
        )
    if said.get("connected_slaves", 0) < min_replicas:
        doubts.append(
            f"the store has {said.get('connected_slaves', 0)} replicas, and coord_min_replicas is {min_replicas}: "
            "no lease is granted until there are as many"
        )
    return doubts


def refuse(why: str) -> NoReturn:
    """Say what is wrong with ``coord_url``.

    Raises:
        ConfigurationError: always.
    """
    raise ConfigurationError(f"coord_url {why}") from None


def dotted(version: tuple[int, ...]) -> str:
    """A version, as people write it."""
    return ".".join(map(str, version))
