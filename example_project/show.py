"""The state as a table: ``python -m example_project.show``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from example_project import settings, tasks
from example_project.inventory import read_inventory
from example_project.nodes import NodeState
from example_project.state import State

_ROLES = {"master": "primary", "slave": "replica"}


def table(state: State, clusters: Iterable[str]) -> Iterator[str]:
    """A line for each node of each cluster, under a head line."""
    yield f"{'cluster':<10}{'node':<22}{'role':<9}{'link':<6}{'memory':>10}{'keys':>8}{'lag':>8}"
    for cluster in clusters:
        found = set(map(str, state.found(cluster)))
        for node in state.nodes(cluster):
            yield _line(cluster, node, "not in the inventory" if node.address in found else "")


def _line(cluster: str, node: NodeState, remark: str) -> str:
    start = f"{cluster:<10}{node.address:<22}"
    if not node.answers:
        return f"{start}does not answer  {remark}".rstrip()
    memory = f"{node.memory / 2**20:.1f} MiB"
    said = f"{_ROLES.get(node.role, node.role):<9}{node.link:<6}{memory:>10}{node.keys:>8}{node.lag:>8}"
    return f"{start}{said}  {remark}".rstrip()


def main() -> None:
    """Print the table."""
    print("\n".join(table(tasks.state, read_inventory(settings.INVENTORY))))


if __name__ == "__main__":
    main()
