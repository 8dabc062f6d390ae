"""What a cluster does to a lease, step by step; under load it is in ``test_cluster_load.py``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import coord_project
import pytest
from black_holes import black_hole
from coord_commands import run_coord
from coord_site import Site
from local_processes import wait_until
from redis.crc import key_slot

from celery_coord.clock import SystemClock
from celery_coord.errors import StoreError
from celery_coord.keys import LEADER_PREFIX
from celery_coord.lease import Held, Lease, Owner
from celery_coord.renewal import Holding
from celery_coord.stores.redis import RedisStore
from celery_coord.testing import LocalServer
from tests.servers.keeping import Kept
from tests.servers.load_members import Member, store_at
from tests.servers.local_cluster import LocalCluster
from tests.servers.local_nodes import Node

KEY = "report:7"
TTL = 300.0
Open = Callable[..., RedisStore]


@pytest.fixture(scope="module")
def set_up(server: LocalServer) -> Iterator[LocalCluster]:
    # A cluster whose slots are not all served serves the others.
    with LocalCluster(options=["--cluster-require-full-coverage", "no"]) as started:
        yield started


@pytest.fixture
def opened(cluster: LocalCluster, kept: Kept) -> Open:
    def open_one(min_replicas: int = 0, timeout: float = 5.0) -> RedisStore:
        return kept(store_at(cluster.url, min_replicas=min_replicas, timeout=timeout))

    return open_one


def acquire(store: RedisStore, key: str = KEY, ttl: float = TTL) -> Lease:
    lease = store.acquire(key, Owner.new("run"), ttl, heed_cooldown=True)
    assert isinstance(lease, Lease), lease
    return lease


def slot_of(key: str) -> int:
    return key_slot(f"lock:{{coord:{key}}}".encode())


def one_key_on_each(cluster: LocalCluster) -> dict[str, Node]:
    """A key for each primary."""
    found: dict[Node, str] = {}
    for n in range(200):
        found.setdefault(cluster.primary_of(slot_of(f"report:{n}")), f"report:{n}")
    assert len(found) == 3
    return {key: node for node, key in found.items()}


def test_the_leases_of_many_keys_are_on_all_primaries(cluster: LocalCluster, opened: Open) -> None:
    store = opened()

    leases = [acquire(store, f"report:{n}") for n in range(60)]

    assert all(len(node.client.keys("lock:*")) > 5 for node in cluster.primaries)
    assert store.renew(leases) == [True] * 60
    assert sorted(store.keys("report:")) == sorted(lease.key for lease in leases)


def test_leases_on_healthy_primaries_are_renewed_while_another_stands_still(
    cluster: LocalCluster, opened: Open
) -> None:
    """The one that does not answer takes its own leases with it, and no other's."""
    member, patient, ttl = Member(opened(timeout=0.6)), opened(), 10.0
    keys = one_key_on_each(cluster)
    asked_at = time.monotonic()
    holdings = {
        key: Holding(acquire(patient, key, ttl), SystemClock(), asked_at=asked_at, max_hold=TTL) for key in keys
    }
    (away, still), *_ = keys.items()
    leases = [one.lease for one in holdings.values()]
    wait_until(lambda: member.store.renew(leases) == [True] * 3, "connections to all primaries")
    for replica in cluster.replicas_of(still):
        replica.pause()  # nobody takes its place
    still.pause()

    for holding in holdings.values():
        member.keeper.watch(holding)
    lost = wait_until(lambda: [key for key, one in holdings.items() if one.known_lost], "a lease that is lost")

    assert lost == [away]
    # Renewed since: what was granted with them would have run out.
    assert all(one.trusted_for > 0.0 for key, one in holdings.items() if key != away)
    for holding in holdings.values():
        member.keeper.forget(holding.lease.owner)


def test_a_slot_that_is_nobodys_takes_no_other_lease_with_it(cluster: LocalCluster, opened: Open) -> None:
    """Nor for good: when it is somebody's again, its lease is renewed as well."""
    store, keys = opened(), one_key_on_each(cluster)
    leases = [acquire(store, key) for key in keys]
    nobodys, owner = slot_of(next(iter(keys))), next(iter(keys.values()))
    for node in cluster.nodes:
        node.client.execute_command("CLUSTER", "DELSLOTS", nobodys)
    store._servers._stale = True  # type: ignore[attr-defined]  # as after any trouble

    try:
        first, *others = store.renew(leases)
    finally:
        owner.client.execute_command("CLUSTER", "ADDSLOTS", nobodys)

    assert isinstance(first, StoreError)
    assert others == [True] * 2
    wait_until(lambda: store.renew(leases) == [True] * 3, "all are renewed again")


def test_a_silent_process_renews_over_a_failover_where_a_replica_has_to_confirm(
    cluster: LocalCluster, opened: Open
) -> None:
    """The old primary says that the slot has moved, and that it cannot wait for replicas: the one is what counts."""
    store = opened(min_replicas=1)
    lease = acquire(store)

    cluster.promote(slot_of(KEY))

    wait_until(lambda: store.renew([lease]) == [True], "the new primary renews it")


def test_a_slot_that_is_on_its_way_makes_an_act_wait_and_breaks_nothing(cluster: LocalCluster, opened: Open) -> None:
    """The server refuses an act of several keys while some of them have moved and some have not."""
    store, slot = opened(timeout=3.0), slot_of(KEY)
    lease = acquire(store)
    source = cluster.primary_of(slot)
    target = next(node for node in cluster.primaries if node is not source)
    cluster.begin_migration(slot, target)
    source.client.execute_command("MIGRATE", "127.0.0.1", target.port, f"lock:{{coord:{KEY}}}", 0, 10_000)

    try:
        # Its time is over at one node or at the other: what is here has moved, and not all of what is there has come.
        with pytest.raises(StoreError, match="TryAgain|AskError"):
            store.settle(lease)
    finally:
        cluster.finish_migration(slot, target)

    assert store.renew([lease]) == [True]
    refused = store.acquire(KEY, Owner.new("run"), TTL, heed_cooldown=True)
    assert isinstance(refused, Held)
    assert (refused.holder, refused.token) == (lease.owner, lease.token)
    assert store.settle(lease)


def test_the_new_place_of_a_slot_is_learnt_from_the_first_who_is_sent_there(
    cluster: LocalCluster, opened: Open
) -> None:
    """Else each act would go the long way, for as long as the process lives."""
    store, slot = opened(), slot_of(KEY)
    lease = acquire(store)
    source = cluster.primary_of(slot)
    cluster.migrate(slot, next(node for node in cluster.primaries if node is not source))
    cluster.wait_until_whole()  # whoever is asked for the map knows the new place
    before = times_moved(source)

    assert all(store.look(KEY).held for _ in range(3))
    assert all(store.renew([lease]) == [True] for _ in range(3))

    assert times_moved(source) - before == 1


def times_moved(node: Node) -> int:
    """How often it has said that a slot is elsewhere; redis-py 4 leaves that as the server says it."""
    said = str(node.info("errorstats").get("errorstat_MOVED", "count=0"))
    return int("".join(filter(str.isdigit, said)))


def test_a_lease_that_no_replica_knows_of_is_not_granted(cluster: LocalCluster, opened: Open) -> None:
    careful, slot = opened(min_replicas=1), slot_of(KEY)
    lease = acquire(careful)
    primary = cluster.primary_of(slot)
    primary.cut_off()

    with pytest.raises(StoreError):
        careful.settle(lease)
    elsewhere = [key for key, node in one_key_on_each(cluster).items() if node is not primary]

    assert [acquire(careful, key).key for key in elsewhere] == elsewhere


def test_a_primary_that_slept_through_its_replacement_grants_nothing_once_it_knows(
    cluster: LocalCluster, opened: Open
) -> None:
    """It learns it from the others, within milliseconds; what it grants until then no replica confirms."""
    one, careful, other, slot = opened(), opened(min_replicas=1), opened(), slot_of(KEY)
    for store in (one, careful):
        assert store.settle(acquire(store))  # their connections stay open
    old = cluster.primary_of(slot)
    old.pause()
    cluster.wait_for_heir(old, slot)
    run = Owner.new("run")  # what it was not told that it has is granted it again
    second = wait_until(lambda: answer(other, run), "an heir who answers")
    old.wake()

    answers = [answer(careful), *until_refused(one)]

    assert isinstance(second, Lease)
    assert not isinstance(answers[0], Lease)
    assert isinstance(answers[-1], Held)
    assert answers[-1].holder == second.owner
    assert len(answers) < 500


def until_refused(store: RedisStore) -> list[object]:
    """What it answers until somebody else has the key; what it grants until then is given back."""
    answers: list[object] = []

    def refused() -> bool:
        answers.append(answer(store))
        if isinstance(answers[-1], Lease):
            store.settle(answers[-1])
        return isinstance(answers[-1], Held)

    wait_until(refused, "a refusal")
    return answers


def answer(store: RedisStore, owner: Owner | None = None) -> object:
    try:
        return store.acquire(KEY, owner or Owner.new("run"), TTL, heed_cooldown=True)
    except StoreError:
        return None


def test_operators_find_the_leaders_on_all_nodes(cluster: LocalCluster, opened: Open, tmp_path: Path) -> None:
    store = opened()
    names = [key.replace(":", "-") for key in (f"report:{n}" for n in range(12))]
    for name in names:
        acquire(store, f"{LEADER_PREFIX}{name}")

    with Site(tmp_path, coord_url=cluster.url) as site:
        listed = run_coord(site, "leaders")

    assert len({cluster.primary_of(slot_of(f"{LEADER_PREFIX}{name}")) for name in names}) == 3
    assert all(name in listed.stdout for name in names), listed.stdout + listed.stderr


def test_code_outside_celery_takes_the_same_lock(cluster: LocalCluster, opened: Open) -> None:
    with coord_project.make_app(coord_url=cluster.url) as app:
        task = app.tasks["hold"]
        with task.lock("n1"):
            held = task.look("n1").held

            assert held is not None
            assert task.lock("n1").acquire(blocking=False) is False
        assert not task.look("n1")


def test_a_process_that_starts_asks_past_a_node_that_is_silent(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9. The cluster is whole, and one of the nodes that the URL names was replaced long ago: that is no outage."""
    told: list[object] = []
    with black_hole() as silent:
        url = f"redis+cluster://127.0.0.1:{silent},127.0.0.1:{cluster.nodes[0].port}"
        store = RedisStore.from_url(url, timeout=5.0, on_recovered=lambda *said: told.append(said))
        # Of the orders in which they may be asked the one in which that node comes first.
        monkeypatch.setattr("random.shuffle", lambda hosts: hosts.sort(key=lambda host: host[1] != silent))

        granted = store.acquire(KEY, Owner.new("run"), TTL, heed_cooldown=True)
        store.close()

    assert isinstance(granted, Lease)
    assert told == []
