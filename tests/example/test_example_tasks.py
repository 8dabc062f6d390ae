"""The example's tasks, run in this process: leases in memory, state on a real server, a fleet of real nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis
from celery import states
from journal_entries import COMPONENT, REFRESH

from celery_coord.testing import FakeClock, use_memory
from example_project import components, journal as journal_module, nodes, settings, tasks
from example_project.app import app
from example_project.inventory import InventoryError
from example_project.journal import Entry, Journal
from example_project.state import Overtaken, State

pytestmark = pytest.mark.server


@pytest.fixture
def state(client: redis.Redis, fleet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> State:
    inventory = tmp_path / "inventory.toml"
    inventory.write_text(f'[clusters.orders]\nnodes = ["{fleet.primary}", "{fleet.replica}"]\n')
    made = State(client)
    for module in (tasks, components, journal_module):
        monkeypatch.setattr(module, "journal", Journal(client))
    monkeypatch.setattr(tasks, "state", made)
    monkeypatch.setattr(settings, "INVENTORY", inventory)
    monkeypatch.setattr(settings, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(nodes, "_PATIENCE", 20.0)  # a node on a busy machine is not away
    return made


@pytest.fixture
def clock() -> FakeClock:
    moved = FakeClock()
    use_memory(app, moved)
    return moved


def asked_for(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The runs that are asked for from now on: task and cluster."""
    asked: list[tuple[str, str]] = []
    for task in (tasks.refresh_cluster_state, tasks.forget_dead_replicas):
        monkeypatch.setattr(task, "delay", lambda cluster, task=task: asked.append((task.name, cluster)))
    return asked


def journal_of(client: redis.Redis) -> list[Entry]:
    return Journal(client).read()[0]


@pytest.mark.usefixtures("clock")
def test_both_kinds_of_task_share_the_key_of_a_cluster() -> None:
    assert tasks.refresh_cluster_state.key_of("orders") == "cluster:orders"
    assert tasks.forget_dead_replicas.key_of(cluster="orders") == "cluster:orders"


@pytest.mark.usefixtures("clock")
def test_a_refresh_keeps_what_the_nodes_say(state: State, fleet: Any) -> None:
    tasks.refresh_cluster_state.apply(("orders",)).get()

    assert [(node.address, node.role) for node in state.nodes("orders")] == [
        (str(fleet.primary), "master"),
        (str(fleet.replica), "slave"),
    ]


def test_a_refresh_in_the_quiet_period_is_dropped_and_the_journal_says_so(
    state: State, client: redis.Redis, clock: FakeClock
) -> None:
    assert state.nodes("orders") == []
    tasks.refresh_cluster_state.apply(("orders",)).get()

    second = tasks.refresh_cluster_state.apply(("orders",))
    clock.advance(settings.QUIET_SECONDS)
    third = tasks.refresh_cluster_state.apply(("orders",))

    assert [second.state, third.state] == [states.REVOKED, states.SUCCESS]
    drops = [entry for entry in journal_of(client) if entry.what == "dropped"]
    assert [(drop.task, drop.cluster, drop.detail) for drop in drops] == [(REFRESH, "orders", "cooling")]


@pytest.mark.usefixtures("clock")
def test_a_refresh_that_was_overtaken_fails_and_does_not_overwrite(state: State) -> None:
    state.save("orders", [], token=2**53)  # by a lease that is yet to come

    overtaken = tasks.refresh_cluster_state.apply(("orders",))

    assert isinstance(overtaken.result, Overtaken)
    assert state.nodes("orders") == []


@pytest.mark.usefixtures("clock")
def test_the_journal_has_both_ends_of_a_body(state: State, client: redis.Redis) -> None:
    tasks.refresh_cluster_state.apply(("orders",)).get()
    state.save("orders", [], token=2**53)
    tasks.forget_dead_replicas.apply(("orders",))

    entries = journal_of(client)
    assert [(entry.what, entry.detail) for entry in entries] == [
        ("entered", ""),
        ("left", "well"),
        ("entered", ""),
        ("left", "failed"),
    ]
    assert entries[1].commands == 2 * settings.SAMPLES
    assert entries[0].token == entries[1].token < entries[2].token
    assert entries[0].at <= entries[1].at <= entries[2].at


@pytest.mark.usefixtures("clock")
def test_a_replica_that_no_longer_answers_is_forgotten(state: State, fleet: Any) -> None:
    gone = fleet.primary.__class__("127.0.0.1", 1)
    state.add_found("orders", [fleet.other_replica, gone])

    tasks.forget_dead_replicas.apply(("orders",)).get()

    assert state.found("orders") == [fleet.other_replica]


def test_discover_finds_the_unlisted_replica_and_asks_for_what_may_be_needed(
    state: State, fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_for(monkeypatch)

    tasks.discover.apply().get()

    assert state.found("orders") == [fleet.other_replica]
    assert asked == [(REFRESH, "orders")]


def test_the_component_discovers_the_same_and_the_journal_has_both_ends_of_its_round(
    state: State, fleet: Any, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_for(monkeypatch)

    components.discovery(7)

    assert state.found("orders") == [fleet.other_replica]
    assert asked == [(REFRESH, "orders")]
    assert [(entry.what, entry.task, entry.token, entry.found) for entry in journal_of(client)] == [
        ("began", COMPONENT, 7, 0),
        ("ended", COMPONENT, 7, 1),
    ]


def test_a_round_that_fails_is_in_the_journal_as_such(
    state: State, client: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "INVENTORY", tmp_path / "nowhere.toml")

    with pytest.raises(InventoryError):
        components.discovery(7)

    assert [(entry.what, entry.detail) for entry in journal_of(client)] == [("began", ""), ("ended", "failed")]
