"""A configuration that cannot work ends the process at start, with one sentence that says what to write."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from coord_site import Site
from local_processes import CeleryProcess

from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server

PASSWORD = "s3cret-w0rd"


def assert_refused(process: CeleryProcess, *says: str) -> None:
    """It ended, not well, with one sentence, no traceback and no password."""
    code, output = process.wait(), process.output
    sentences = [line for line in output.splitlines() if line.startswith("celery_coord: ")]

    assert code not in (0, None), output
    assert len(sentences) == 1, output
    for words in says:
        assert words in sentences[0]
    assert "Traceback" not in output
    assert PASSWORD not in output


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        pytest.param({"coord_url": f"redis://:{PASSWORD}@host:port/0"}, "coord_url is malformed", id="malformed"),
        pytest.param({"coord_url": f"//:{PASSWORD}@host/0"}, "coord_url is malformed", id="no scheme"),
        pytest.param({"coord_url": f"etcd://:{PASSWORD}@host"}, "the unknown scheme 'etcd'", id="unknown scheme"),
        pytest.param({"coord_url": 6379}, "coord_url is a URL, not a value of type int", id="a url of the wrong type"),
        pytest.param({"coord_lease_ttl": "abc"}, "coord_lease_ttl is a number of seconds", id="not a number"),
        pytest.param({"coord_lease_ttl": 0}, "coord_lease_ttl is at least 0.1 seconds", id="zero"),
        pytest.param({"coord_ulr": "redis://x"}, "no setting 'coord_ulr': did you mean 'coord_url'", id="misspelt"),
        pytest.param({"coord_on_drop": "revok"}, "did you mean 'revoke'", id="a word of another meaning"),
    ],
)
def test_a_worker_with_a_wrong_setting_does_not_start(
    folder: Path, server: LocalServer, conf: dict[str, Any], says: str
) -> None:
    """Bad input gives one clear sentence at start, that says what to write; no message repeats a password."""
    with Site(folder) as site:
        assert_refused(site.worker(**conf), says)


def test_a_worker_without_a_store_does_not_start(folder: Path, server: LocalServer) -> None:
    """With neither `coord_url` nor a Redis for results or as a broker, the app says so at start."""
    with Site(folder) as site:
        worker = site.worker(broker_url="memory://", result_backend="cache+memory://", coord_url=None)

        assert_refused(worker, "there is no store", "write coord_url = 'redis://")


@pytest.mark.parametrize("given", [f":{PASSWORD}@", ""], ids=["wrong", "none"])
def test_a_worker_whose_password_is_refused_does_not_start(folder: Path, server: LocalServer, given: str) -> None:
    """A `coord_url` whose server refuses the password, which no message repeats."""
    with LocalServer(["--requirepass", "another"]) as store, Site(folder) as site:
        worker = site.worker(coord_url=f"redis://{given}127.0.0.1:{store.port}/0")

        assert_refused(worker, "refuses us", "check its user and password")


@pytest.mark.parametrize("pool", ["prefork", "custom"])
def test_a_worker_with_children_does_not_start_on_a_store_in_memory(
    folder: Path, server: LocalServer, pool: str
) -> None:
    """`memory://` serves one process, also where a user's own pool is made of prefork's."""
    with Site(folder) as site:
        worker = site.worker(pool, coord_url="memory://", env={"CELERY_CUSTOM_WORKER_POOL": "own_pool:OwnPool"})

        assert_refused(worker, "memory:// serves one process", "this worker has children")


def test_a_worker_does_not_start_on_a_server_that_is_too_old(folder: Path, server: LocalServer) -> None:
    """A server that is too old is refused."""
    with old_server() as port, Site(folder) as site:
        worker = site.worker(coord_url=f"redis://127.0.0.1:{port}/0")

        assert_refused(worker, "too old", "Redis 6.2 or Valkey is needed")


@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_a_beat_with_a_wrong_setting_does_not_start(folder: Path, server: LocalServer, pool: str) -> None:
    """Bad input gives one clear sentence at start, in a beat as well, also one that a worker embeds."""
    with Site(folder, coord_leader_ttl="abc") as site:
        process = site.beat("beat") if pool == "solo" else site.worker(pool)

        assert_refused(process, "coord_leader_ttl is a number of seconds")


@pytest.mark.parametrize(
    "scheduler", ["no.such:Scheduler", "celery.beat:NoSuch", "celery:Celery", "celery_coord.beat:LeaderScheduler"]
)
def test_a_beat_whose_inner_scheduler_does_not_exist_does_not_start(
    folder: Path, server: LocalServer, scheduler: str
) -> None:
    """An inner scheduler that does not exist, or is none."""
    with Site(folder) as site:
        beat = site.beat("beat", coord_beat_scheduler=scheduler)

        assert_refused(beat, "coord_beat_scheduler names", scheduler, "write coord_beat_scheduler = ")


class OldServer(socketserver.StreamRequestHandler):
    """Speaks as much of the protocol as a client needs to ask for the version."""

    INFO = b"# Server\r\nredis_version:5.0.0\r\n"

    def handle(self) -> None:
        while words := self._command():
            self.wfile.write(self._answer(words[0].upper()))

    def _command(self) -> list[bytes]:
        count = self.rfile.readline()[1:]
        return [self._word() for _ in range(int(count or 0))]

    def _word(self) -> bytes:
        return self.rfile.read(int(self.rfile.readline()[1:]) + 2).strip()

    def _answer(self, verb: bytes) -> bytes:
        match verb:
            case b"INFO":
                return b"$%d\r\n%s\r\n" % (len(self.INFO), self.INFO)
            case b"SELECT" | b"PING":
                return b"+OK\r\n"
            case _:
                return b"-ERR unknown command `%s`, with args beginning with: \r\n" % verb


@contextmanager
def old_server() -> Iterator[int]:
    """The port of a server that says it is a Redis 5."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), OldServer) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
