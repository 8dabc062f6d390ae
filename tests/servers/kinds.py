"""One set-up of each kind that `coord_url` can name.

Each begins as an empty store that is reached by the URL alone, and ends with the block that it is used in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis
from redis.cluster import RedisCluster

from celery_coord.testing import LocalServer
from tests.integration.black_holes import reserved_port
from tests.servers import rights
from tests.servers.binaries import Binary, speaks_tls
from tests.servers.certificates import issued
from tests.servers.local_cluster import LocalCluster
from tests.servers.local_nodes import Node
from tests.servers.local_sentinel import MASTER, LocalSentinel
from tests.servers.local_tls import sentinel_over_tls

#: What it takes to name the user in a URL.
AS_USER = f"{rights.USER}:{rights.PASSWORD}@"


@dataclass(frozen=True)
class SetUp:
    """A store that runs.

    Attributes:
        url: the whole of what the library is told.
        admin: a client of somebody who may do everything; for the commands on a key, wherever that lives.
        flush: forgets everything.
    """

    url: str
    admin: Any
    flush: Callable[[], object]


Start = Callable[[Binary], AbstractContextManager[SetUp]]


@dataclass(frozen=True)
class Kind:
    """A kind of set-up: how it is started, and what speaks against it on a server; empty: nothing."""

    start: Start
    why_not: Callable[[Binary], str] = lambda _: ""


@contextmanager
def standalone(binary: Binary, query: str = "") -> Iterator[SetUp]:
    with LocalServer(binary=binary.path) as server, _admin(server.url) as admin:
        yield SetUp(server.url + query, admin, admin.flushall)


@contextmanager
def password(binary: Binary) -> Iterator[SetUp]:
    with LocalServer(["--requirepass", "secret"], binary=binary.path) as server:
        url = server.url.replace("://", "://:secret@")
        with _admin(url) as admin:
            yield SetUp(url, admin, admin.flushall)


@contextmanager
def user(binary: Binary) -> Iterator[SetUp]:
    with LocalServer(binary=binary.path) as server, _admin(server.url) as admin:
        rights.grant(admin, rights.rules())
        yield SetUp(rights.url_of_user(server.url), admin, admin.flushall)


@contextmanager
def unix(binary: Binary) -> Iterator[SetUp]:
    with TemporaryDirectory(prefix="celery-coord-") as folder:
        path = Path(folder) / "redis.sock"
        with LocalServer(["--unixsocket", str(path)], binary=binary.path) as server, _admin(server.url) as admin:
            yield SetUp(f"unix://{path}", admin, admin.flushall)


@contextmanager
def tls(binary: Binary) -> Iterator[SetUp]:
    with issued() as certificates, reserved_port() as port:
        options = ["--tls-port", str(port), *certificates.server_options]
        with LocalServer(options, binary=binary.path) as server, _admin(server.url) as admin:
            yield SetUp(f"rediss://127.0.0.1:{port}/0?{certificates.query}", admin, admin.flushall)


@contextmanager
def resp2(binary: Binary) -> Iterator[SetUp]:
    with standalone(binary, "?protocol=2") as set_up:
        yield set_up


@contextmanager
def resp3(binary: Binary) -> Iterator[SetUp]:
    with standalone(binary, "?protocol=3") as set_up:
        yield set_up


@contextmanager
def sentinel(binary: Binary) -> Iterator[SetUp]:
    with LocalSentinel(binary.path, replicas=1) as watched:
        yield SetUp(watched.url, watched.primary.client, watched.flush)


@contextmanager
def sentinel_user(binary: Binary) -> Iterator[SetUp]:
    """The user exists on the servers and on the sentinels, each of which is told: users are not copied."""
    with LocalSentinel(binary.path, replicas=1) as watched:
        for node in watched.nodes:
            rights.grant(node.client, rights.rules())
        for one in watched.sentinels:
            rights.grant(one.client, rights.rules_of_sentinels())
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in watched.sentinels)
        to_sentinels = f"sentinel_username={rights.USER}&sentinel_password={rights.PASSWORD}"
        url = f"sentinel://{AS_USER}{hosts}/0?master_name={MASTER}&{to_sentinels}"
        yield SetUp(url, watched.primary.client, watched.flush)


@contextmanager
def sentinel_tls(binary: Binary) -> Iterator[SetUp]:
    with (
        issued() as certificates,
        sentinel_over_tls(binary.path, certificates) as (server, port),
        _admin(server.url) as admin,
    ):
        url = f"sentinels://127.0.0.1:{port}/0?master_name={MASTER}&{certificates.query}"
        yield SetUp(url, admin, admin.flushall)


@contextmanager
def cluster(binary: Binary) -> Iterator[SetUp]:
    with LocalCluster(binary.path, replicas=0) as nodes, admin_of_cluster(nodes.nodes[0]) as admin:
        yield SetUp(nodes.url, admin, nodes.flush)


@contextmanager
def cluster_user(binary: Binary) -> Iterator[SetUp]:
    with LocalCluster(binary.path, replicas=0) as nodes, admin_of_cluster(nodes.nodes[0]) as admin:
        for node in nodes.nodes:
            rights.grant(node.client, [*rights.rules(), *rights.rules_in_a_cluster()])
        yield SetUp(rights.url_of_user(nodes.url), admin, nodes.flush)


@contextmanager
def cluster_tls(binary: Binary) -> Iterator[SetUp]:
    with (
        issued() as certificates,
        LocalCluster(binary.path, replicas=0, certificates=certificates) as nodes,
        admin_of_cluster(nodes.nodes[0]) as admin,
    ):
        yield SetUp(nodes.url, admin, nodes.flush)


def _without_tls(binary: Binary) -> str:
    return "" if speaks_tls(binary) else "built without TLS"


def _without_resp3(_: Binary) -> str:
    return "" if int(redis.__version__.partition(".")[0]) >= 5 else "redis-py speaks RESP3 since 5.0"


#: All kinds, in the order of the page.
KINDS: dict[str, Kind] = {
    "standalone": Kind(standalone),
    "password": Kind(password),
    "user": Kind(user),
    "unix": Kind(unix),
    "tls": Kind(tls, _without_tls),
    "resp2": Kind(resp2),
    "resp3": Kind(resp3, _without_resp3),
    "sentinel": Kind(sentinel),
    "sentinel-user": Kind(sentinel_user),
    "sentinel-tls": Kind(sentinel_tls, _without_tls),
    "cluster": Kind(cluster),
    "cluster-user": Kind(cluster_user),
    "cluster-tls": Kind(cluster_tls, _without_tls),
}


@contextmanager
def _admin(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        yield client


@contextmanager
def admin_of_cluster(node: Node) -> Iterator[RedisCluster]:
    client = RedisCluster(host="127.0.0.1", port=node.port, **node.options)
    try:
        yield client
    finally:
        client.close()
