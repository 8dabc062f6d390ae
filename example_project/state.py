"""What is known of each cluster, kept in Redis, and *fenced*.

A lease can run out under a run that was paused: swapped out, stopped, on a host that froze. When it wakes up it does
not know that another run has taken over, and would write its old view over the newer one. No lock can prevent that,
but the place that is written to can: each lease has a token, larger than all before it, and the place refuses a token
that is smaller than the largest it has seen.

So every write carries the token of the lease under which it is made, and the check and the write are one step. Both
kinds of task share the cluster's key, hence its tokens, hence this fence.

What is in the server, for a cluster C:

    monitor:{C}          hash   token: the largest seen; nodes: JSON
    monitor:{C}:found    set    addresses of replicas that the inventory does not list
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import redis

from example_project.inventory import Address
from example_project.nodes import NodeState

# KEYS: cluster, found. ARGV: token, and what the write needs.
_FENCE = """
local token, newest = tonumber(ARGV[1]), tonumber(redis.call("HGET", KEYS[1], "token") or 0)
if token < newest then
  return "overtaken"
end
redis.call("HSET", KEYS[1], "token", ARGV[1])
"""
_SAVE = (
    _FENCE
    + """
redis.call("HSET", KEYS[1], "nodes", ARGV[2])
return "written"
"""
)
_FORGET = (
    _FENCE
    + """
for i = 2, #ARGV do
  redis.call("SREM", KEYS[2], ARGV[i])
end
return "written"
"""
)


class Overtaken(Exception):
    """The write was refused: a run with a newer lease has written since."""


class State:
    """What is known of the clusters.

    Args:
        client: of the server that keeps it; answers with text.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._save = client.register_script(_SAVE)
        self._forget = client.register_script(_FORGET)

    def save(self, cluster: str, nodes: Iterable[NodeState], *, token: int) -> None:
        """Keep what was seen of a cluster.

        Args:
            cluster: its name.
            nodes: what was seen.
            token: of the lease under which it was seen: ``current_lease().token``.

        Raises:
            Overtaken: a larger token was here before.
        """
        seen = json.dumps([asdict(node) for node in nodes])
        _check(cluster, self._save(keys=_names(cluster), args=[token, seen]))

    def forget(self, cluster: str, addresses: Iterable[Address], *, token: int) -> None:
        """Forget replicas that were found once.

        Raises:
            Overtaken: a larger token was here before.
        """
        _check(cluster, self._forget(keys=_names(cluster), args=[token, *map(str, addresses)]))

    def add_found(self, cluster: str, addresses: Iterable[Address]) -> None:
        """Remember replicas that the inventory does not list. A set only grows by this, so it needs no fence."""
        texts = [str(address) for address in addresses]
        if texts:
            self._client.sadd(_names(cluster)[1], *texts)

    def found(self, cluster: str) -> list[Address]:
        """The replicas that were found and not forgotten, in order."""
        texts: Any = self._client.smembers(_names(cluster)[1])
        return sorted(Address.parse(text) for text in texts)

    def nodes(self, cluster: str) -> list[NodeState]:
        """What the last run saw of a cluster; empty where there was none."""
        seen: Any = self._client.hget(_names(cluster)[0], "nodes")
        return [NodeState(**node) for node in json.loads(seen or "[]")]

    def has_dead_replicas(self, cluster: str) -> bool:
        """Whether a replica that was found did not answer the last run."""
        silent = {node.address for node in self.nodes(cluster) if not node.answers}
        return any(str(address) in silent for address in self.found(cluster))


def _names(cluster: str) -> list[str]:
    return [f"monitor:{{{cluster}}}", f"monitor:{{{cluster}}}:found"]


def _check(cluster: str, answer: object) -> None:
    if answer == "overtaken":
        raise Overtaken(cluster)
