"""Reshardings and deaths of primaries while runs compete for keys, judged by `load_judge`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from local_processes import wait_until
from redis.crc import key_slot

from celery_coord.errors import StoreError
from celery_coord.stores import Store
from celery_coord.testing import LocalServer
from tests.servers.load_judge import UNANSWERED
from tests.servers.load_members import Load, store_at
from tests.servers.local_cluster import LocalCluster

KEYS = [f"cluster:{n}" for n in range(6)]


@pytest.fixture(scope="module")
def set_up(server: LocalServer) -> Iterator[LocalCluster]:
    with LocalCluster() as started:
        yield started


def opener(cluster: LocalCluster, min_replicas: int = 0) -> Callable[[], Store]:
    return lambda: store_at(cluster.url, min_replicas=min_replicas, timeout=1.0)


def slot_of(key: str) -> int:
    return key_slot(f"lock:{{coord:{key}}}".encode())


def test_the_resharding_of_busy_slots_breaks_no_promise(cluster: LocalCluster) -> None:
    with Load(opener(cluster), KEYS) as load:
        for key in KEYS[:3]:
            primaries = cluster.primaries
            here = primaries.index(cluster.primary_of(slot_of(key)))
            cluster.begin_migration(slot_of(key), primaries[here - 1])
            load.wait_for_runs(10)  # which find that some keys have moved and some have not
            cluster.finish_migration(slot_of(key), primaries[here - 1])
        load.wait_until_all_ran(time.monotonic())
        verdict = load.finish()

    assert verdict.objections == []


def test_the_death_of_a_primary_under_load_breaks_no_promise(cluster: LocalCluster) -> None:
    with Load(opener(cluster), KEYS) as load:
        dead = cluster.primary_of(slot_of(KEYS[0]))
        cluster.kill(dead)
        cluster.wait_for_heir(dead, slot_of(KEYS[0]))
        load.wait_until_all_ran(time.monotonic())
        verdict = load.finish()

    assert verdict.objections == []


def test_a_death_that_would_lose_leases_admits_no_second_holder_where_a_replica_has_to_confirm(
    cluster: LocalCluster,
) -> None:
    with Load(opener(cluster, min_replicas=1), KEYS) as load:
        slot = slot_of(KEYS[0])
        old = cluster.primary_of(slot)
        old.cut_off()
        wait_until(lambda: any(run.outcome == UNANSWERED for run in load.history.runs), "a run that nobody confirms")
        cluster.kill(old)
        cluster.wait_for_heir(old, slot)
        cluster.mend()  # the heir needs a replica as well
        load.wait_until_all_ran(time.monotonic())
        verdict = load.finish()

    assert verdict.objections == []


def test_a_failover_on_which_both_nodes_agree_breaks_no_promise(cluster: LocalCluster) -> None:
    with Load(opener(cluster), KEYS) as load:
        cluster.promote(slot_of(KEYS[0]))
        load.wait_until_all_ran(time.monotonic())
        verdict = load.finish()

    assert verdict.objections == []


def test_a_cluster_that_has_to_be_whole_serves_nobody_while_a_slot_is_nobodys(cluster: LocalCluster) -> None:
    """The servers' default."""
    store = store_at(cluster.url, timeout=1.0)
    lost = cluster.primary_of(slot_of(KEYS[0]))
    elsewhere = next(key for key in KEYS if cluster.primary_of(slot_of(key)) is not lost)
    for node in (*cluster.replicas_of(lost), lost):
        node.kill()

    def said() -> str:
        try:
            store.look(elsewhere)
        except StoreError as error:
            return str(error)
        return ""

    with cluster.impatient():
        wait_until(lambda: "ClusterDown" in said(), "an error that says it")
    store.close()
