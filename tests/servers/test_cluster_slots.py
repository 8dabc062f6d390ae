"""Where keys live in a cluster: all of one act in one slot, those of many keys all over. No server is asked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st
from redis.crc import key_slot
from redis.exceptions import ResponseError

from celery_coord.errors import StoreError
from celery_coord.lease import Lease, Owner
from celery_coord.stores.redis import RedisStore
from celery_coord.stores.redis.address import Address
from celery_coord.stores.redis.names import Names
from tests.servers.local_cluster import SLOTS

Command = Sequence[Any]
#: Whatever UTF-8 can say, with more braces than usual.
WORDS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("{}:")))


class Listening:
    """Servers that write down what they are asked, and answer nothing."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Command]] = []

    def ask(self, key: str, command: Command, **_: Any) -> Any:
        self.asked.append((key, command))
        raise ResponseError("nobody is here")

    def ask_many(self, requests: Sequence[tuple[str, Command]]) -> list[Any]:
        self.asked += requests
        return [ResponseError("nobody is here")] * len(requests)

    def wait(self, key: str, command: Command) -> None:
        self.asked.append((key, command))


def slots_of_all_acts(key: str, run: str) -> dict[str, set[int]]:
    """The slots of what each act names, and by which its server is found."""
    address = Address.of("redis+cluster://127.0.0.1:7000", {}, timeout=1.0)
    store, listening = RedisStore(address, namespace="coord"), Listening()
    store._servers = listening  # type: ignore[assignment]
    owner = Owner(run, 1, "nonce")
    lease = Lease(key, str(owner), 1, 60.0)
    acts = {
        "acquire": lambda: store.acquire(key, owner, 60.0, heed_cooldown=True, label=key, remember=60.0),
        "renew": lambda: store.renew([lease]),
        "settle": lambda: store.settle(lease, cooldown=60.0, remember=60.0),
        "hold": lambda: store.hold(lease, 60.0, remember=60.0),
        "refuses": lambda: store.refuses(key, owner, heed_cooldown=True),
        "cool": lambda: store.cool(key, owner, 60.0, remember=60.0),
        "forget": lambda: store.forget(key, owner),
        "clear": lambda: store.clear(key),
        "look": lambda: store.look(key),
        "record": lambda: store.record(lease, "name", "value"),
        "record in time": lambda: store.record(lease, "name", "value", within=1.0),
        "records": lambda: store.records(key),
        "erase": lambda: store.erase(lease, ["name"]),
        "ask": lambda: store.ask(key, "step down", 60.0),
        "request": lambda: store.request(key),
        "wait": lambda: store.wait(key, 0.1),
    }
    found = {}
    for name, act in acts.items():
        listening.asked.clear()
        with suppress(StoreError):
            act()
        found[name] = {
            key_slot(one.encode()) for asked, command in listening.asked for one in (asked, *keys_in(command))
        }
    return found


def keys_in(command: Command) -> Sequence[str]:
    if command[0] in ("EVALSHA", "EVAL"):
        return command[3 : 3 + command[2]]
    return () if command[0] == "TIME" else command[1:2]


@settings(deadline=None)
@given(WORDS, WORDS.filter(bool))
@example("", "run")
@example("}", "}")
@example("{}", "{other}")
@example("a}b{c", "{x}")
@example("{user}:7", "run")
@example("ключ/鍵", "run")
@example("long" * 5000, "run")
def test_all_that_is_kept_of_a_key_is_in_one_slot(key: str, run: str) -> None:
    slots = slots_of_all_acts(key, run)

    assert all(slots.values()), "an act that asks nobody proves nothing"
    assert len(set.union(*slots.values())) == 1


def test_a_lock_for_code_outside_celery_is_in_the_slot_of_the_lease() -> None:
    """python-redis-lock's names for the two keys of a lock."""
    [slot] = slots_of_all_acts("report:7", "run")["look"]

    assert {key_slot(f"{name}:{{coord:report:7}}".encode()) for name in ("lock", "lock-signal")} == {slot}


@pytest.mark.parametrize("nodes", [3, 100])
def test_keys_are_spread_over_all_nodes(nodes: int) -> None:
    slots = [key_slot(Names("coord", f"report:{n}").lock.encode()) for n in range(20 * nodes)]

    counts = [sum(slot * nodes // SLOTS == node for slot in slots) for node in range(nodes)]

    assert min(counts) > 0
    assert max(counts) < 60
