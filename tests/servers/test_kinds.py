"""Each kind of set-up is reached as its URL says, and in no other way."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery

from celery_coord.app import coordination
from celery_coord.clock import SystemClock
from celery_coord.stores.opening import open_store
from celery_coord.stores.redis import RedisStore
from celery_coord.testing import LocalServer
from tests.servers import kinds, rights
from tests.servers.acts import leased
from tests.servers.binaries import WANTED, found, speaks_tls
from tests.servers.cells import SAMPLE, Cell, needed
from tests.servers.kinds import KINDS, SetUp
from tests.servers.local_sentinel import MASTER, LocalSentinel

pytestmark = pytest.mark.server


@contextmanager
def connection_to(set_up: SetUp) -> Iterator[dict[str, str]]:
    """How a server sees the connection of a store that holds a lease there."""
    with closing(open_store(set_up.url, namespace="coord", timeout=5, clock=SystemClock())) as store:
        assert isinstance(store, RedisStore)
        leased(store)
        [ours] = [line for line in set_up.admin.client_list() if line["cmd"] in ("evalsha", "eval")]
        yield ours


def test_every_kind_and_every_server_is_in_each_run() -> None:
    cells = [Cell.named(name) for name in SAMPLE]

    assert {cell.kind for cell in cells} == set(KINDS)
    assert {cell.server for cell in cells} == set(WANTED)


def test_a_server_is_what_it_is_called() -> None:
    for binary in found().values():
        product, version = binary.title.split()
        assert binary.name == f"{product.lower()}-{version.rpartition('.')[0]}"


def test_a_user_is_who_the_url_names() -> None:
    with Cell("user", "redis-6.2").started() as set_up, connection_to(set_up) as ours:
        assert ours["user"] == rights.USER


def test_a_unix_socket_is_what_the_url_names() -> None:
    with Cell("unix", "valkey-8.1").started() as set_up, connection_to(set_up) as ours:
        assert ours["addr"] == f"{urlsplit(set_up.url).path}:0"


def test_a_unix_socket_knows_users(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    options = ["--unixsocket", str(path), *rights.server_options()]
    with LocalServer(options, binary=needed("redis-6.2").path):
        checks(coord_url=f"unix://{kinds.AS_USER}{path}")


def test_tls_is_spoken_where_the_url_says_so() -> None:
    """The server has a port without it, too."""
    binary = needed("redis-7.0")
    assert speaks_tls(binary)
    with kinds.tls(binary) as set_up, connection_to(set_up) as ours:
        assert ours["laddr"] == urlsplit(set_up.url).netloc


@pytest.mark.parametrize("protocol", ["2", "3"])
def test_the_protocol_is_the_one_that_the_url_says(protocol: str) -> None:
    if why_not := (cell := Cell(f"resp{protocol}", "valkey-8.1")).why_not():
        pytest.skip(why_not)
    with cell.started() as set_up, connection_to(set_up) as ours:
        assert ours["resp"] == protocol


def test_tls_of_the_result_backend_is_the_stores_where_the_store_is_its_server() -> None:
    """Without `coord_url` the result backend's Redis serves, with the options by which that is reached."""
    with kinds.tls(needed("redis-7.0")) as set_up:
        url, options = set_up.url.partition("?")[0], tls_options(set_up)
        uses_ssl = {**options, "ssl_cert_reqs": "required"}
        checks(result_backend=url, redis_backend_use_ssl=uses_ssl, broker_url="memory://")
        checks(result_backend=url, redis_backend_use_ssl=uses_ssl, broker_url="memory://", coord_url=url)
        checks(broker_url=url, broker_use_ssl=uses_ssl)
        checks(
            broker_url=url.replace("rediss", "redis"), broker_use_ssl={**options, "ssl_cert_reqs": ssl.CERT_REQUIRED}
        )
        checks(coord_url=url, coord_transport_options=options, broker_url="memory://")


def test_options_that_mean_nothing_to_one_server_are_passed_over() -> None:
    """As Celery passes over them: they may be there for the broker's own use, or for the day of the move."""
    options = {"master_name": MASTER, "global_keyprefix": "shop", "visibility_timeout": 60, "socket_timeout": 1}
    with kinds.standalone(needed("redis-7.0")) as set_up:
        checks(broker_url=set_up.url, broker_transport_options=options)
        checks(broker_url="memory://", result_backend=set_up.url, result_backend_transport_options=options)


def test_a_unix_socket_takes_no_options_from_those_who_have_none() -> None:
    with kinds.unix(needed("redis-7.0")) as set_up:
        checks(broker_url="memory://", coord_url=set_up.url)
        checks(broker_url=set_up.url.replace("unix", "redis+socket"))


def test_the_sentinels_of_the_broker_are_the_stores() -> None:
    """Celery's own form of the URL, with its transport options, for the results as well as for the broker."""
    with LocalSentinel(needed("redis-7.0").path, replicas=1) as watched:
        options = {"master_name": MASTER}
        checks(broker_url=watched.celery_url, broker_transport_options=options)
        checks(broker_url="memory://", result_backend=watched.celery_url, result_backend_transport_options=options)
        checks(broker_url="memory://", coord_url=watched.celery_url, coord_transport_options=options)


def checks(**conf: Any) -> None:
    """An application with these settings finds a store that can be used."""
    app = Celery("borrowing", set_as_current=False)
    app.conf.update({"coord_store_timeout": 10, **conf})
    store = coordination(app).store
    assert store.check() == []
    store.close()


def tls_options(set_up: SetUp) -> dict[str, str]:
    return dict(option.split("=") for option in urlsplit(set_up.url).query.split("&"))
