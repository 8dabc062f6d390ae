"""What the example sees of real nodes."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from example_project import nodes
from example_project.inventory import Address

pytestmark = pytest.mark.server

#: A port where nobody listens, and no test that looks for a free one finds it.
NOBODYS = 1


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node on a busy machine may take its time, and is not away."""
    monkeypatch.setattr(nodes, "_PATIENCE", 20.0)


def test_a_replica_that_the_inventory_does_not_list_is_found(fleet: Any) -> None:
    assert nodes.unlisted_replicas([fleet.primary, fleet.replica]) == {fleet.other_replica}


def test_a_fleet_that_is_listed_in_full_has_nothing_to_find(fleet: Any) -> None:
    assert nodes.unlisted_replicas([fleet.primary, fleet.replica, fleet.other_replica]) == set()


def test_a_replica_that_is_listed_by_name_is_no_stranger(fleet: Any) -> None:
    by_name = [Address("localhost", node.port) for node in (fleet.primary, fleet.replica, fleet.other_replica)]

    assert nodes.unlisted_replicas(by_name) == set()


def test_a_node_that_is_away_hides_no_other(fleet: Any) -> None:
    away = Address("127.0.0.1", NOBODYS)

    assert nodes.unlisted_replicas([away, fleet.primary]) == {fleet.replica, fleet.other_replica}


def test_every_node_is_asked_for_its_real_state(fleet: Any) -> None:
    with redis.Redis(port=fleet.primary.port) as client:
        client.flushall()
        client.set("a", 1)
        client.wait(2, 5000)

    seen = nodes.observe([fleet.primary, fleet.replica], samples=2, pause=0.0)

    primary, replica = seen.nodes
    assert (primary.role, primary.replicas, primary.keys) == ("master", 2, 1)
    assert (replica.role, replica.link, replica.keys, replica.answers) == ("slave", "up", 1, True)
    assert min(primary.memory, primary.offset, replica.memory, replica.offset) > 0
    assert seen.commands == 4


def test_the_nodes_feel_each_sample(fleet: Any) -> None:
    with redis.Redis(port=fleet.replica.port) as client:
        client.config_resetstat()

        nodes.observe([fleet.replica], samples=3, pause=0.0)

        assert client.info("commandstats")["cmdstat_info"]["calls"] == 3


def test_a_node_that_is_away_is_seen_not_to_answer(fleet: Any) -> None:
    away = Address("127.0.0.1", NOBODYS)

    seen = nodes.observe([fleet.primary, away], samples=2, pause=0.0)

    assert [node.answers for node in seen.nodes] == [True, False]
    assert not nodes.answers(away)
    assert nodes.answers(fleet.primary)
