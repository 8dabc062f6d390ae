"""The line between client and server does what its words say: no fault test says more than this tool can."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import redis
from black_holes import black_hole
from local_processes import wait_until
from proxy import Line, Proxy

from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server

#: For how long silence is listened to.
SILENCE = 0.2
#: For how long somebody who is to be heard is waited for.
PATIENCE = 10.0


@pytest.fixture
def proxy(redis_url: str, server: LocalServer) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)


def says(line: socket.socket, words: bytes, *, patience: float = PATIENCE) -> bytes:
    line.settimeout(patience)
    line.sendall(words + b"\r\n")
    return line.recv(1000)


def is_silent(line: socket.socket, words: bytes) -> bool:
    """Whether nothing is answered to these words."""
    with pytest.raises(TimeoutError):
        says(line, words, patience=SILENCE)
    return True


def is_over(line: socket.socket) -> bool:
    """Whether the other end is gone, and has said so in one way or the other."""
    try:
        return says(line, b"PING") == b""
    except ConnectionError:
        return True


def test_a_line_that_passes_passes(proxy: Proxy) -> None:
    with connect(proxy) as line:
        assert says(line, b"PING") == b"+PONG\r\n"
        assert (proxy.open, proxy.accepted) == (1, 1)

    wait_until(lambda: proxy.open == 0, "the proxy closes what its client has closed")


def test_what_is_said_to_a_stalled_line_arrives_when_it_passes_again(proxy: Proxy) -> None:
    with connect(proxy) as line:
        with proxy.being(Line.STALLS):
            assert is_silent(line, b"INCR n")
        line.settimeout(PATIENCE)
        assert line.recv(1000) == b":1\r\n"


def test_what_is_said_to_a_mute_line_is_done_and_not_answered(proxy: Proxy, client: redis.Redis) -> None:
    with connect(proxy) as line, proxy.being(Line.MUTE):
        assert is_silent(line, b"INCR n")
        wait_until(lambda: client.get("n") == "1", "it is done")


def test_who_was_connected_to_a_peer_that_vanished_is_never_answered(proxy: Proxy, server: LocalServer) -> None:
    with connect(proxy) as old:
        assert says(old, b"PING") == b"+PONG\r\n"
        with proxy.being(Line.VANISHED), connect(proxy) as new:
            assert is_silent(new, b"PING")
        assert is_silent(old, b"PING")
        with connect(proxy) as line:
            assert says(line, b"PING") == b"+PONG\r\n"


def test_an_answer_that_is_lost_is_lost_once(proxy: Proxy) -> None:
    proxy.lose_answers(1)
    with connect(proxy) as line:
        assert says(line, b"INCR n") == b""
    assert proxy.lost_all
    with connect(proxy) as line:
        assert says(line, b"INCR n") == b":2\r\n"


def test_a_peer_that_died_refuses_and_listens_again_on_the_same_port(proxy: Proxy) -> None:
    with connect(proxy) as line:
        proxy.die()
        assert is_over(line)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)

    proxy.heal()

    with connect(proxy) as line:
        assert says(line, b"PING") == b"+PONG\r\n"


def test_a_black_hole_does_not_even_connect() -> None:
    with black_hole() as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=SILENCE)
