"""The inventory: which clusters there are, and which nodes somebody wrote down for each.

[clusters.orders]
nodes = ["10.0.0.1:6379", "10.0.0.2:6379"]
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

#: What a cluster may be called: its name stands in keys, in logs and on screens.
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_EXAMPLE = 'nodes = ["10.0.0.1:6379"]'


class InventoryError(ValueError):
    """The inventory cannot be used; the message says what to write instead."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Where a node listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read ``host:port``.

        Raises:
            InventoryError: it is something else.
        """
        host, _, port = str(text).rpartition(":")
        if not (isinstance(text, str) and host and port.isdecimal()):
            raise InventoryError(f"{text!r} is not the address of a node: write host:port, as in {_EXAMPLE}")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


#: The nodes of each cluster.
Inventory = dict[str, tuple[Address, ...]]


def read_inventory(path: Path) -> Inventory:
    """Read the file.

    Raises:
        InventoryError: it is not there, is not TOML, or does not say what it should.
    """
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InventoryError(
            f"there is no inventory to read at {path} ({error.strerror}): set MONITOR_INVENTORY to its path"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise InventoryError(f"{path} is not TOML: {error}") from None
    clusters = said.get("clusters")
    if not isinstance(clusters, dict) or not clusters:
        raise InventoryError(f"{path} names no cluster: write [clusters.orders] and under it {_EXAMPLE}")
    return {name: _nodes(name, cluster) for name, cluster in clusters.items()}


def _nodes(name: str, cluster: Any) -> tuple[Address, ...]:
    if not _NAME.fullmatch(name):
        raise InventoryError(f"a cluster is called {name!r}: use letters, digits, '-' and '_' alone")
    nodes = cluster.get("nodes") if isinstance(cluster, dict) else None
    if not isinstance(nodes, list) or not nodes:
        raise InventoryError(f"the cluster {name} has no nodes: write {_EXAMPLE}")
    return tuple(Address.parse(node) for node in nodes)
