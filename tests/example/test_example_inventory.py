"""The inventory is read, or says in one sentence what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from example_project.inventory import Address, InventoryError, read_inventory


def test_an_inventory_names_the_nodes_of_each_cluster(tmp_path: Path) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text('[clusters.orders]\nnodes = ["a:1", "b.example:6379"]\n[clusters.billing]\nnodes = ["::1:6379"]\n')

    assert read_inventory(path) == {
        "orders": (Address("a", 1), Address("b.example", 6379)),
        "billing": (Address("::1", 6379),),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "names no cluster: write"),
        ("clusters = 3", "names no cluster: write"),
        ("[clusters", "is not TOML"),
        ("[clusters.orders]", "the cluster orders has no nodes: write"),
        ("[clusters.orders]\nnodes = []", "the cluster orders has no nodes: write"),
        ('[clusters.orders]\nnodes = ["here"]', "'here' is not the address of a node: write host:port"),
        ('[clusters.orders]\nnodes = ["here:x"]', "'here:x' is not the address of a node: write host:port"),
        ("[clusters.orders]\nnodes = [6379]", "6379 is not the address of a node: write host:port"),
        ('[clusters."a b"]\nnodes = ["a:1"]', "a cluster is called 'a b': use letters"),
    ],
)
def test_a_wrong_inventory_is_refused_with_what_to_write(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "inventory.toml"
    path.write_text(text)

    with pytest.raises(InventoryError) as refused:
        read_inventory(path)

    assert sentence in str(refused.value)


def test_an_inventory_that_is_not_there_is_refused_with_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(InventoryError, match="set MONITOR_INVENTORY"):
        read_inventory(tmp_path / "none.toml")


def test_an_address_reads_back_what_it_writes() -> None:
    assert Address.parse(str(Address("10.0.0.1", 6379))) == Address("10.0.0.1", 6379)
