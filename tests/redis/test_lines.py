"""Connections that are kept: an answer reaches whoever asked, and nobody else; and they are few."""

from __future__ import annotations

import gc
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.connection import AbstractConnection
from redis.exceptions import ResponseError, TimeoutError as RedisTimeoutError

from celery_coord.stores.redis.address import Address
from celery_coord.stores.redis.lines import Lines
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server


#: Of requests that block until they are answered by hand: longer than any pause.
UNTIL_ANSWERED = 60


@pytest.fixture
def of_their_own(redis_url: str) -> Iterator[redis.Redis]:
    """A client that waits for an answer for as long as it takes."""
    with redis.Redis.from_url(redis_url, decode_responses=True, socket_timeout=None) as client:
        yield client


@pytest.fixture
def lines(of_their_own: redis.Redis) -> Lines:
    return Lines(of_their_own, most=2, timeout=5)


@pytest.fixture
def answer(client: redis.Redis) -> Iterator[Callable[[int], object]]:
    """Answers so many of those who wait for "nothing"; in the end all of them, whatever went wrong."""
    yield lambda count: client.lpush("nothing", *["an answer"] * count)
    client.lpush("nothing", "an answer", "an answer")


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines.ask(("ECHO", "connected"))

    with monkeypatch.context() as patched:
        patched.setattr("redis.connection.Connection.read_response", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            lines.ask(("ECHO", "first"))

    assert lines.ask(("ECHO", "second")) == ["second"]


def test_an_error_is_an_answer_and_the_connection_is_kept(lines: Lines, client: redis.Redis) -> None:
    mine = lines.ask(("CLIENT", "ID"))
    client.lpush("list", 1)

    refused, echoed = lines.ask(("GET", "list"), ("ECHO", "after it"))

    assert isinstance(refused, ResponseError)
    assert echoed == "after it"
    assert lines.ask(("CLIENT", "ID")) == mine


def test_however_many_ask_there_are_no_more_connections_than_allowed(lines: Lines) -> None:
    barrier = threading.Barrier(40)
    ids: set[int] = set()

    def ask() -> None:
        barrier.wait()
        for _ in range(20):
            ids.update(lines.ask(("CLIENT", "ID")))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 <= len(ids) <= 2
    lines.close()


def test_one_who_finds_no_free_connection_does_not_wait_for_ever(lines: Lines, answer: Callable[[int], object]) -> None:
    waits = [threading.Thread(target=lines.ask, args=(("BLPOP", "nothing", UNTIL_ANSWERED),)) for _ in range(2)]
    for thread in waits:
        thread.start()
    while len(lines._all) < 2 or lines._idle:
        time.sleep(0.01)

    with pytest.raises(RedisTimeoutError, match="all 2 connections of this kind are in use"):
        lines.ask_once(("ECHO", "me"), until=time.monotonic() + 0.1)

    answer(2)
    for thread in waits:
        thread.join()
    assert lines.ask(("ECHO", "me")) == ["me"]


def test_a_connection_that_a_signal_took_away_leaves_room_for_another(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A soft time limit may strike between any two steps: what was taken then is given back by nobody."""
    for _ in range(5):
        with monkeypatch.context() as patched:
            patched.setattr("celery_coord.stores.redis.lines._Line.exchange", _interrupted)
            patched.setattr("celery_coord.stores.redis.lines._Line.close", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                lines.ask(("ECHO", "first"))
        gc.collect()

    assert lines.ask(("ECHO", "second")) == ["second"]


def test_what_failed_at_once_is_asked_once_more_and_what_took_its_time_is_not(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9. Bounded: whoever waited for as long as an answer may take waits no second time."""
    tries: list[float] = []
    now = takes = 0.0

    def fail(*_: object, **__: object) -> None:
        nonlocal now
        tries.append(now)
        now += takes
        raise RedisTimeoutError("no answer")

    monkeypatch.setattr("celery_coord.stores.redis.lines.time.monotonic", lambda: now)
    monkeypatch.setattr("celery_coord.stores.redis.lines._Line.exchange", fail)
    for takes, expected in ((0.1, 2), (2.0, 1)):  # noqa: B007  `fail` takes it
        tries.clear()
        with pytest.raises(RedisTimeoutError):
            Lines(client, most=2, timeout=2.0).ask(("ECHO", "me"))
        assert len(tries) == expected


def test_who_waits_for_a_connection_gets_one_before_those_who_came_later(
    of_their_own: redis.Redis, answer: Callable[[int], object]
) -> None:
    """Else some would wait in vain while others take turns."""
    lines = Lines(of_their_own, most=1, timeout=UNTIL_ANSWERED)
    line = lines._taken()
    assert line is not None
    waits = threading.Thread(target=lines.ask, args=(("BLPOP", "nothing", UNTIL_ANSWERED),))
    waits.start()
    while not lines._waiters:
        time.sleep(0.001)

    lines._give_back(line)

    assert not lines._idle
    answer(1)
    waits.join()
    assert list(lines._idle) == [line]
    assert not lines._waiters


def _interrupted(*_: object, **__: object) -> None:
    """A time limit, between the request and its answer."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["TCP", "a socket"])
def test_a_connection_is_made_wholly_or_not_at_all(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. What strikes before the database is chosen does not leave a connection to another one."""
    with tempfile.TemporaryDirectory(prefix="celery-coord-") as folder:
        path = Path(folder) / "s.sock"
        with LocalServer(["--unixsocket", str(path)]) as server:
            url = f"redis://127.0.0.1:{server.port}/1" if kind == "TCP" else f"unix://{path}?db=1"
            address = Address.of(url, {}, timeout=5.0)
            lines = Lines(address.client(), most=1, timeout=5)
            send = AbstractConnection.send_command

            def cut_short(connection: AbstractConnection, *args: object, **options: object) -> None:
                if args[0] == "SELECT":
                    raise KeyboardInterrupt
                send(connection, *args, **options)

            with monkeypatch.context() as patched:
                patched.setattr(AbstractConnection, "send_command", cut_short)
                with pytest.raises(KeyboardInterrupt):
                    lines.ask(("SET", "key", "first"))
            lines.ask(("SET", "key", "second"))
            lines.close()

            with redis.Redis(port=server.port) as admin:
                assert admin.info("keyspace").keys() == {"db1"}
