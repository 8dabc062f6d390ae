"""A server of one's own: on a port that nobody took meanwhile, and on the same one for as long as it is used."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis

from celery_coord.testing import LocalServer, ServerMissing

pytestmark = pytest.mark.server


@pytest.fixture
def unstarted() -> LocalServer:
    return a_server()


def a_server(port: int | None = None) -> LocalServer:
    try:
        return LocalServer(port=port)
    except ServerMissing as missing:
        # Skipping for want of a server is a local privilege.
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


@contextmanager
def taken(port: int) -> Iterator[None]:
    """Somebody else listens there."""
    with socket.create_server(("127.0.0.1", port)):
        yield


def test_a_server_whose_port_was_taken_before_it_started_listens_on_another(unstarted: LocalServer) -> None:
    chosen = unstarted.port

    with taken(chosen), unstarted, redis.Redis.from_url(unstarted.url) as client:
        assert unstarted.port != chosen
        assert client.info("server")["process_id"] == unstarted.pid


def test_a_server_that_was_told_its_port_listens_there_or_says_that_it_cannot(unstarted: LocalServer) -> None:
    told = a_server(unstarted.port)

    with taken(unstarted.port), pytest.raises(RuntimeError, match=str(unstarted.port)):
        told.start()

    assert told.port == unstarted.port
    assert told.pid is None


def test_a_server_that_starts_again_keeps_its_port(unstarted: LocalServer) -> None:
    """Its address is known to others."""
    with unstarted:
        known = unstarted.url
        unstarted.stop()

        with taken(unstarted.port), pytest.raises(RuntimeError, match="did not start"):
            unstarted.start()

        unstarted.start()
        assert unstarted.url == known
