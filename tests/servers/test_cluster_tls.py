"""A cluster over TLS alone, as managed services have it: whatever its nodes are called, names are checked."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import coord_project
import pytest
from local_processes import wait_until
from redis.crc import key_slot

from celery_coord.errors import StoreError
from celery_coord.lease import Held, Lease, Owner
from celery_coord.stores.redis import RedisStore
from tests.servers.binaries import speaks_tls
from tests.servers.cells import needed
from tests.servers.certificates import issued
from tests.servers.keeping import Kept
from tests.servers.load_members import store_at
from tests.servers.local_cluster import LocalCluster
from tests.servers.local_nodes import Node

pytestmark = pytest.mark.server

KEY = "report:7"
TTL = 300.0
Open = Callable[..., RedisStore]


@dataclass(frozen=True)
class Called:
    """What the nodes say that they are called.

    Attributes:
        host: the one name in their certificates, which is also that in the URL.
        options: what they are started with.
    """

    host: str
    options: tuple[str, ...]


#: Redis 7.0 is the first that can be told. Without a name a node has that of the one who was asked, and another port.
CALLED = {
    "by address": Called("127.0.0.1", ()),
    "by name": Called(
        "localhost",
        ("--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname"),
    ),
    "nothing": Called("localhost", ("--cluster-preferred-endpoint-type", "unknown-endpoint")),
}


@pytest.fixture(scope="module", params=CALLED.values(), ids=CALLED)
def set_up(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    called: Called = request.param
    binary = needed("redis-7.0")
    if not speaks_tls(binary):
        pytest.skip(f"{binary.title} was built without TLS")
    with (
        issued(called.host) as certificates,
        LocalCluster(binary.path, options=called.options, certificates=certificates, host=called.host) as started,
    ):
        yield started


@pytest.fixture
def opened(cluster: LocalCluster, kept: Kept) -> Open:
    """Stores that are told of one node; the others they learn from it."""

    def open_one(url: str = "", min_replicas: int = 0) -> RedisStore:
        return kept(store_at(url or cluster.url_of(cluster.primaries[:1]), min_replicas=min_replicas, timeout=5.0))

    return open_one


def acquire(store: RedisStore, key: str = KEY) -> Lease:
    lease = store.acquire(key, Owner.new("run"), TTL, heed_cooldown=True)
    assert isinstance(lease, Lease), lease
    return lease


def slot_of(key: str) -> int:
    return key_slot(f"lock:{{coord:{key}}}".encode())


def another(cluster: LocalCluster, slot: int) -> Node:
    """A primary that does not have a slot."""
    return next(node for node in cluster.primaries if node is not cluster.primary_of(slot))


def times(node: Node, said: str) -> int:
    """How often a node has sent somebody on with that word; redis-py 4 leaves the count as the server says it."""
    count = str(node.info("errorstats").get(f"errorstat_{said}", "count=0"))
    return int("".join(filter(str.isdigit, count)))


def test_no_node_listens_without_tls(cluster: LocalCluster) -> None:
    assert {node.client.config_get("port")["port"] for node in cluster.nodes} == {"0"}


def test_the_leases_of_many_keys_are_on_all_nodes(cluster: LocalCluster, opened: Open) -> None:
    store = opened()

    leases = [acquire(store, f"report:{n}") for n in range(60)]

    assert all(len(node.client.keys("lock:*")) > 5 for node in cluster.primaries)
    assert store.renew(leases) == [True] * 60
    assert sorted(store.keys("report:")) == sorted(lease.key for lease in leases)
    assert store.check() == []


def test_a_slot_that_has_moved_is_followed(cluster: LocalCluster, opened: Open) -> None:
    store, slot = opened(), slot_of(KEY)
    lease = acquire(store)
    source, target = cluster.primary_of(slot), another(cluster, slot)
    before = times(source, "MOVED")
    cluster.migrate(slot, target)
    cluster.wait_until_whole()  # whoever is asked for the map knows the new place

    held = store.look(KEY).held

    assert held is not None
    assert held.token == lease.token
    assert store.renew([lease]) == [True]
    assert store.settle(lease)
    assert times(source, "MOVED") - before == 1


def test_a_slot_that_is_on_its_way_is_followed(cluster: LocalCluster, opened: Open) -> None:
    """What does not exist yet is made at the new place; of acts that name one key, as a request does."""
    store, slot = opened(), slot_of(KEY)
    source, target = cluster.primary_of(slot), another(cluster, slot)
    before = times(source, "ASK")
    cluster.begin_migration(slot, target)

    try:
        store.ask(KEY, "step down", TTL)

        assert store.request(KEY) == "step down"
        assert times(source, "ASK") - before == 2
        assert len(target.client.keys()) == 1
    finally:
        cluster.finish_migration(slot, target)
    assert store.request(KEY) == "step down"


def test_a_replica_that_is_promoted_when_its_primary_dies_is_followed(cluster: LocalCluster, opened: Open) -> None:
    store, slot = opened(min_replicas=1), slot_of(KEY)
    lease = acquire(store)  # which a replica has confirmed
    dead = cluster.primary_of(slot)

    cluster.kill(dead)
    cluster.wait_for_heir(dead, slot)

    found = wait_until(lambda: held_at(store), "an heir who answers")
    assert (found.holder, found.token) == (lease.owner, lease.token)
    cluster.mend()  # the heir needs a replica as well
    wait_until(lambda: store.renew([lease]) == [True], "the heir renews it")


def held_at(store: RedisStore) -> Held | None:
    try:
        return store.look(KEY).held
    except StoreError:
        return None


def test_code_outside_celery_takes_the_same_lock_wherever_its_slot_is(cluster: LocalCluster) -> None:
    """Where an answer names no host, redis-py would ask this machine, and whoever listens there."""
    with (
        coord_project.make_app(coord_url=cluster.url_of(cluster.primaries[:1])) as app,
        mock.patch.object(socket, "getaddrinfo", wraps=socket.getaddrinfo) as looked_up,
    ):
        task = app.tasks["hold"]
        lock, slot = task.lock("n1"), slot_of(task.key_of("n1"))
        for _ in range(2):
            with lock:
                held = task.look("n1").held

                assert held is not None
                assert task.lock("n1").acquire(blocking=False) is False
            assert not task.look("n1")
            cluster.migrate(slot, another(cluster, slot))

    assert "" not in {call.args[0] for call in looked_up.call_args_list}


def test_a_node_is_refused_whose_certificate_does_not_name_it(cluster: LocalCluster, opened: Open) -> None:
    """Else the other tests would prove nothing."""
    other = {"localhost": "127.0.0.1", "127.0.0.1": "localhost"}
    url = cluster.url_of(cluster.nodes)
    ours = next(host for host in other if f"//{host}:" in url)
    elsewhere = url.replace(f"{ours}:", f"{other[ours]}:")

    with pytest.raises(StoreError, match="certificate"):
        acquire(opened(elsewhere))

    assert acquire(opened(elsewhere.replace("ssl_check_hostname=true", "ssl_check_hostname=false")))
