"""Connections that are kept: an answer reaches whoever asked, and nobody else."""

from __future__ import annotations

import pytest
import redis
from redis.exceptions import ResponseError

from celery_coord.stores.redis.lines import Lines

pytestmark = pytest.mark.server


@pytest.fixture
def lines(client: redis.Redis) -> Lines:
    return Lines(client)


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next_one(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines.ask("ECHO", "connected")

    with monkeypatch.context() as patched:
        patched.setattr("redis.connection.Connection.read_response", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            lines.ask("ECHO", "first")

    assert lines.ask("ECHO", "second") == "second"


def test_an_error_is_an_answer_and_the_connection_is_kept(lines: Lines, client: redis.Redis) -> None:
    mine = lines.ask("CLIENT", "ID")
    client.lpush("list", 1)

    with pytest.raises(ResponseError):
        lines.ask("GET", "list")

    assert lines.ask("CLIENT", "ID") == mine


def _interrupted(*_: object, **__: object) -> None:
    """A time limit, between the request and its answer."""
    raise KeyboardInterrupt
