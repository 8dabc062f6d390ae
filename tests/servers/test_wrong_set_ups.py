"""A `coord_url` that cannot work ends the process as it starts, with one sentence that says what to write."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from celery import Celery
from coord_site import Site

from celery_coord.worker import check
from tests.servers import kinds, rights
from tests.servers.acts import evicting
from tests.servers.binaries import Binary
from tests.servers.cells import needed
from tests.servers.kinds import SetUp
from tests.servers.local_cluster import LocalCluster
from tests.servers.local_sentinel import LocalSentinel

pytestmark = pytest.mark.server

PASSWORD = "s3cret-w0rd"


class Place:
    """One set-up of each kind, started when it is first asked for."""

    def __init__(self, stack: ExitStack, binary: Binary) -> None:
        self._enter, self._binary = stack.enter_context, binary

    @cached_property
    def one(self) -> str:
        """Host and port of a server, in which there is a user who may do nothing."""
        set_up: SetUp = self._enter(kinds.standalone(self._binary))
        rights.grant(set_up.admin, ["on", f">{rights.PASSWORD}"])
        return urlsplit(set_up.url).netloc

    @cached_property
    def tls(self) -> tuple[str, dict[str, str]]:
        """Host and port of a server with TLS, and the options that it takes."""
        url = urlsplit(self._enter(kinds.tls(self._binary)).url)
        return url.netloc, dict(option.split("=") for option in url.query.split("&"))

    @cached_property
    def watched(self) -> LocalSentinel:
        return self._enter(LocalSentinel(self._binary.path, replicas=1))

    @property
    def sentinel(self) -> str:
        return f"127.0.0.1:{self.watched.sentinels[0].port}"

    @property
    def replica(self) -> str:
        return f"127.0.0.1:{self.watched.replicas[0].port}"

    @cached_property
    def guarded_sentinel(self) -> str:
        """Of sentinels that ask for a password."""
        watched = self._enter(LocalSentinel(self._binary.path, replicas=1, sentinels=1))
        watched.sentinels[0].client.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")
        return f"127.0.0.1:{watched.sentinels[0].port}"

    @cached_property
    def node(self) -> str:
        nodes = self._enter(LocalCluster(self._binary.path, replicas=0))
        return f"127.0.0.1:{nodes.nodes[0].port}"


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(stack, needed("redis-7.0"))


@dataclass(frozen=True)
class Wrong:
    """A URL that cannot work at a place, and what is said of it."""

    url: Callable[[Place], str]
    says: tuple[str, ...]


def over_tls(*given: str, **instead: str) -> Callable[[Place], str]:
    """With these of the options that the server takes, or others in their place."""

    def url(place: Place) -> str:
        host, options = place.tls
        chosen = {**{name: options[name] for name in given}, **instead}
        return f"rediss://{host}/0?" + "&".join(f"{name}={value}" for name, value in chosen.items())

    return url


WRONG = {
    "one server for a cluster": Wrong(
        lambda place: f"redis+cluster://{place.one}", ("no cluster", "write coord_url = 'redis://")
    ),
    "a node of a cluster for one server": Wrong(
        lambda place: f"redis://{place.node}/0", ("one node of a cluster", "write coord_url = 'redis+cluster://")
    ),
    "a Sentinel for a server": Wrong(
        lambda place: f"redis://{place.sentinel}/0", ("a Sentinel", "write coord_url = 'sentinel://")
    ),
    "a Sentinel for a cluster": Wrong(
        lambda place: f"redis+cluster://{place.sentinel}", ("a Sentinel", "write coord_url = 'sentinel://")
    ),
    "a server for a Sentinel": Wrong(
        lambda place: f"sentinel://{place.one}/0?master_name=mymaster", ("no Sentinel", "write coord_url = 'redis://")
    ),
    "a node of a cluster for a Sentinel": Wrong(
        lambda place: f"sentinel://{place.node}/0?master_name=mymaster",
        ("no Sentinel", "write coord_url = 'redis+cluster://"),
    ),
    "a replica": Wrong(lambda place: f"redis://{place.replica}/0", ("a replica", "its primary, or the Sentinels")),
    "sentinels without the name of what they watch": Wrong(
        lambda place: f"sentinel://{place.sentinel}/0", ("master_name=mymaster", "{'master_name': 'mymaster'}")
    ),
    "sentinels that watch another": Wrong(
        lambda place: f"sentinel://{place.sentinel}/0?master_name=other", ("watch no 'other'", "master_name=mymaster")
    ),
    "sentinels that ask for a password": Wrong(
        lambda place: f"sentinel://{place.guarded_sentinel}/0?master_name=mymaster",
        ("Sentinel", "refuse", "sentinel_password="),
    ),
    "sentinels that refuse the password": Wrong(
        lambda place: f"sentinel://{place.guarded_sentinel}/0?master_name=mymaster&sentinel_password={PASSWORD}",
        ("Sentinel", "refuse", "sentinel_password="),
    ),
    "servers behind sentinels that refuse the password": Wrong(
        lambda place: f"sentinel://coord:{PASSWORD}@{place.sentinel}/0?master_name=mymaster",
        ("refuses us", "check its user and password"),
    ),
    "a wrong password": Wrong(
        lambda place: f"redis://coord:{PASSWORD}@{place.one}/0", ("refuses us", "check its user and password")
    ),
    "a cluster that refuses the password": Wrong(
        lambda place: f"redis+cluster://coord:{PASSWORD}@{place.node}", ("refuses us", "check its user and password")
    ),
    "a user without rights": Wrong(
        lambda place: f"redis://{kinds.AS_USER}{place.one}/0", ("lacks a right", "docs/servers.md")
    ),
    "a database that is not there": Wrong(
        lambda place: f"redis://{place.one}/99", ("database 99", "write coord_url = 'redis://")
    ),
    "a cluster with a database": Wrong(
        lambda place: f"redis+cluster://{place.node}/1", ("a database", "write coord_url = 'redis+cluster://")
    ),
    "no TLS where it is spoken": Wrong(
        lambda place: f"redis://{place.tls[0]}/0", ("speaks TLS", "write coord_url = 'rediss://")
    ),
    "TLS where it is not spoken": Wrong(
        lambda place: f"rediss://{place.one}/0", ("speaks no TLS", "write coord_url = 'redis://")
    ),
    "an authority that is not known": Wrong(over_tls("ssl_certfile", "ssl_keyfile"), ("certificate", "ssl_ca_certs")),
    "no certificate of one's own": Wrong(over_tls("ssl_ca_certs"), ("certificate", "ssl_certfile", "ssl_keyfile")),
    "a certificate that is not there": Wrong(
        over_tls("ssl_certfile", "ssl_keyfile", ssl_ca_certs="/nowhere/ca.pem"), ("ssl_ca_certs", "/nowhere/ca.pem")
    ),
}


@pytest.mark.parametrize("wrong", [pytest.param(wrong, id=name) for name, wrong in WRONG.items()])
def test_a_url_that_cannot_work_is_told_in_one_sentence(place: Place, wrong: Wrong) -> None:
    """Bad input gives one clear sentence at start, that says what to write; no message repeats a password."""
    app = Celery("wrong", set_as_current=False)
    app.conf.update(coord_url=wrong.url(place), coord_store_timeout=3)

    with pytest.raises(SystemExit) as refused:
        check(app)

    sentence = str(refused.value)
    assert sentence.startswith("celery_coord: coord_url ")
    assert [words for words in wrong.says if words not in sentence] == []
    assert PASSWORD not in sentence
    assert len(sentence) < 300


def test_a_worker_whose_url_cannot_work_does_not_start(place: Place, tmp_path: Path) -> None:
    """Of each stage one: the URL, what the server says that it is, and what it answers."""
    cases = [WRONG[name] for name in ("sentinels without the name of what they watch", "a replica", "a wrong password")]
    with Site(tmp_path) as site:
        workers = [site.worker(coord_url=wrong.url(place)) for wrong in cases]
        for worker, wrong in zip(workers, cases, strict=True):
            assert worker.wait() not in (0, None)
            [sentence] = re.findall(r"^celery_coord: .*", worker.output, re.MULTILINE)
            assert [words for words in wrong.says if words not in sentence] == []
            assert "Traceback" not in worker.output
            assert PASSWORD not in worker.output


def test_a_worker_on_a_server_that_evicts_starts_and_says_so(place: Place, tmp_path: Path) -> None:
    """A policy that may be there on purpose is told, and no reason not to start."""
    with kinds.standalone(needed("redis-7.0")) as store, evicting(store.admin), Site(tmp_path) as site:
        [worker] = site.ready_workers(coord_url=store.url)

        assert re.search(r"WARNING.*maxmemory-policy is allkeys-lru.*set it to noeviction", worker.output)
