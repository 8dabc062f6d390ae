"""State is written only by the newest lease."""

from __future__ import annotations

import pytest
import redis

from example_project.inventory import Address
from example_project.nodes import NodeState
from example_project.show import table
from example_project.state import Overtaken, State

OLD, NEW = 1_900_000_000_000_001, 1_900_000_000_000_002  # of the size that tokens have, and next to each other

BEFORE = NodeState("a:1", answers=True, role="master", keys=1)
AFTER = NodeState("a:1", answers=True, role="master", keys=2)


def test_what_is_saved_can_be_read(client: redis.Redis) -> None:
    state = State(client)

    state.save("orders", [BEFORE], token=OLD)

    assert state.nodes("orders") == [BEFORE]
    assert state.nodes("billing") == []


def test_a_larger_token_overwrites(client: redis.Redis) -> None:
    state = State(client)
    state.save("orders", [BEFORE], token=OLD)

    state.save("orders", [AFTER], token=NEW)

    assert state.nodes("orders") == [AFTER]


def test_a_smaller_token_is_refused_and_changes_nothing(client: redis.Redis) -> None:
    state = State(client)
    state.save("orders", [AFTER], token=NEW)

    with pytest.raises(Overtaken):
        state.save("orders", [BEFORE], token=OLD)

    assert state.nodes("orders") == [AFTER]


def test_the_holder_of_a_lease_may_write_twice(client: redis.Redis) -> None:
    state = State(client)
    state.save("orders", [BEFORE], token=OLD)

    state.save("orders", [AFTER], token=OLD)

    assert state.nodes("orders") == [AFTER]


def test_both_kinds_of_write_share_one_fence(client: redis.Redis) -> None:
    state = State(client)
    state.add_found("orders", [Address("a", 2)])
    state.save("orders", [BEFORE], token=NEW)

    with pytest.raises(Overtaken):
        state.forget("orders", [Address("a", 2)], token=OLD)

    assert state.found("orders") == [Address("a", 2)]


def test_each_cluster_has_a_fence_of_its_own(client: redis.Redis) -> None:
    state = State(client)
    state.save("orders", [AFTER], token=NEW)

    state.save("billing", [BEFORE], token=OLD)

    assert state.nodes("billing") == [BEFORE]


def test_a_forgotten_replica_is_gone_and_the_others_stay(client: redis.Redis) -> None:
    state = State(client)
    state.add_found("orders", [Address("a", 2), Address("a", 3)])

    state.forget("orders", [Address("a", 2)], token=NEW)

    assert state.found("orders") == [Address("a", 3)]


def test_a_dead_replica_is_one_that_was_found_and_did_not_answer(client: redis.Redis) -> None:
    state = State(client)
    state.add_found("orders", [Address("a", 2)])
    state.save("orders", [NodeState("a:1"), NodeState("a:2", answers=True)], token=OLD)
    assert not state.has_dead_replicas("orders")

    state.save("orders", [NodeState("a:1"), NodeState("a:2")], token=NEW)

    assert state.has_dead_replicas("orders")


def test_the_table_shows_each_node_and_says_who_is_not_in_the_inventory(client: redis.Redis) -> None:
    state = State(client)
    state.add_found("orders", [Address("a", 2)])
    replica = NodeState("a:2", answers=True, role="slave", link="up", memory=3 * 2**20, keys=7, lag=42)
    state.save("orders", [AFTER, replica, NodeState("a:3")], token=OLD)

    _, first, second, third = table(state, ["orders"])

    assert first.split() == ["orders", "a:1", "primary", "0.0", "MiB", "2", "0"]
    assert second.split() == [
        "orders",
        "a:2",
        "replica",
        "up",
        "3.0",
        "MiB",
        "7",
        "42",
        *["not", "in", "the", "inventory"],
    ]
    assert third == f"{'orders':<10}{'a:3':<22}does not answer"
