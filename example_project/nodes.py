"""What nodes say of themselves. Every question is a real command, which the node feels."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from example_project.inventory import Address

#: For how long a node may keep us waiting, in seconds; well under the lease of the run that asks.
_PATIENCE = 1.0

Info = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NodeState:
    """One node, as it was seen.

    Attributes:
        address: where it listens.
        answers: whether it said anything; if not, the rest is empty.
        role: ``"master"`` or ``"slave"``, as the server says.
        link: of a replica: ``"up"`` or ``"down"``.
        replicas: how many follow it.
        memory: bytes in use.
        keys: in all of its databases.
        offset: how far in the replication stream it is.
        lag: bytes behind the furthest node of its cluster, the worst of the samples.
    """

    address: str
    answers: bool = False
    role: str = ""
    link: str = ""
    replicas: int = 0
    memory: int = 0
    keys: int = 0
    offset: int = 0
    lag: int = 0


@dataclass(frozen=True, slots=True)
class Observation:
    """The nodes of a cluster, and how many commands it took to see them."""

    nodes: tuple[NodeState, ...]
    commands: int


def observe(addresses: Sequence[Address], *, samples: int, pause: float) -> Observation:
    """Ask every node several times: one sample says little of lag.

    Args:
        addresses: the nodes of one cluster.
        samples: how often each is asked.
        pause: seconds between two samples.
    """
    seen = _sample(addresses)
    for _ in range(samples - 1):
        time.sleep(pause)
        seen = [_worse_lag(before, now) for before, now in zip(seen, _sample(addresses), strict=True)]
    return Observation(tuple(seen), commands=samples * len(addresses))


def unlisted_replicas(listed: Iterable[Address]) -> set[Address]:
    """The replicas that follow these nodes, and are none of them.

    A node says where its replicas are by IP address, an inventory may say it by name: so names are resolved.
    """
    listed = tuple(listed)
    known = {place for address in listed for place in _places(address)}
    return {replica for address in listed for replica in _replicas(_info(address, "replication"))} - known


def answers(address: Address) -> bool:
    """Whether the node says anything at all."""
    return bool(_info(address, "server"))


def _sample(addresses: Sequence[Address]) -> list[NodeState]:
    nodes = [_state(address, _info(address)) for address in addresses]
    furthest = max((node.offset for node in nodes), default=0)
    return [replace(node, lag=furthest - node.offset) if node.answers else node for node in nodes]


def _worse_lag(before: NodeState, now: NodeState) -> NodeState:
    return replace(now, lag=max(before.lag, now.lag)) if now.answers else now


def _info(address: Address, *sections: str) -> Info:
    """What INFO says; empty where the node does not answer."""
    client = redis.Redis(
        address.host,
        address.port,
        socket_timeout=_PATIENCE,
        socket_connect_timeout=_PATIENCE,
        retry=Retry(NoBackoff(), 0),
    )
    with client:
        try:
            return dict(client.info(*sections))
        except RedisError:
            return {}


def _state(address: Address, info: Info) -> NodeState:
    if not info:
        return NodeState(str(address))
    return NodeState(
        str(address),
        answers=True,
        role=info["role"],
        link=info.get("master_link_status", ""),
        replicas=info["connected_slaves"],
        memory=info["used_memory"],
        keys=sum(database["keys"] for name, database in info.items() if name.startswith("db") and name[2:].isdecimal()),
        offset=info.get("slave_repl_offset", info["master_repl_offset"]),
    )


def _replicas(info: Info) -> Iterable[Address]:
    for number in range(info.get("connected_slaves", 0)):
        replica = info.get(f"slave{number}")
        if replica:
            yield Address(str(replica["ip"]), int(replica["port"]))


def _places(address: Address) -> Iterable[Address]:
    """The address by name, and by every IP address of that name."""
    yield address
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return
    for *_, place in found:
        yield Address(str(place[0]), address.port)
