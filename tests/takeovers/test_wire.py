"""What the server tells is read as it is meant: from a real server, where a leader's process would have written it."""

from __future__ import annotations

import json

import pytest
import redis

from celery_coord.testing import LocalServer
from tests.takeovers.history import Claim, Message, Payment
from tests.takeovers.wire import Wire

pytestmark = pytest.mark.server

RECORDS = "coord1-records:{coord:leader:beat}"


def test_claims_and_messages_are_read_in_the_order_of_the_server(server: LocalServer, client: redis.Redis) -> None:
    with Wire(server.port) as wire:
        client.eval("redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])", 1, RECORDS, 'run:a "b" \\ ü', "1000.250000 7")
        client.lpush("celery", message(due=1000.25, term=7))
        client.hset(RECORDS, "owed:1000.000000:d:e", "1000.000000")
        client.hset(RECORDS, "owed:1000.000000:d:e", "1000.000000 8")
        client.hset(RECORDS, mapping={"run:c": "1000.500000 7", "other": "fact"})
        client.hset("another", "run:a", "1 1")

        assert wire.wait_for(lambda event: event.entry == "c", after=0, timeout=10)

    assert [type(event) for event in wire.log] == [Claim, Message, Payment, Claim]
    assert [event.entry for event in wire.log] == ['a "b" \\ ü', 'a "b" \\ ü', "d:e", "c"]
    first, second, paid, third = wire.log
    assert (paid.due, paid.term) == (1000.0, 8)
    assert (first.run, first.term, third.run) == (1000.25, 7, 1000.5)
    assert (second.due, second.term, second.sender) == (1000.25, 7, 4711)


def test_what_cannot_be_read_is_not_passed_over(server: LocalServer, client: redis.Redis) -> None:
    with pytest.raises(KeyError):
        listen_to(server, client, json.dumps({"headers": {}}))


def test_a_message_under_another_lease_is_refused(server: LocalServer, client: redis.Redis) -> None:
    """The fencing token of the term is in the headers of what beat sends."""
    with pytest.raises(ValueError, match="is not the lease of term 7"):
        listen_to(server, client, message(due=1000.25, term=7, lease=6))


def listen_to(server: LocalServer, client: redis.Redis, sent: str) -> None:
    with Wire(server.port) as wire:
        client.lpush("celery", sent)
        wire.wait_for(lambda _: False, after=0, timeout=10)


def message(*, due: float, term: int, lease: int = 7) -> str:
    beat = {"entry": 'a "b" \\ ü', "due": due, "term": term}
    return json.dumps(
        {"headers": {"origin": "gen4711@host", "coord_beat": beat, "coord_lease": ["leader:beat", lease]}}
    )
