"""Random histories, which both stores must answer alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from under import UnderTest, in_memory, in_redis

from celery_coord.lease import Done, Held, Lease, Look, Owner, Refusal
from tests.servers.kinds import SetUp

KEYS = st.sampled_from(["one", "two"])
OWNERS = st.builds(Owner, st.sampled_from(["a", "b"]), st.integers(0, 2), st.sampled_from(["x", "y"]))
NAMES, FACTS = st.sampled_from(["run:a", "run:b", "act"]), st.sampled_from(["", "1.5 1", "2.5 2"])
TTL = 600.0
LENGTHS = st.sampled_from([0.0, 600.0])


def told(answer: Lease | Refusal | Done | Look | None) -> Any:
    """An answer without what two clocks may see differently."""
    match answer:
        case Lease():
            return ("leased", answer.key, answer.owner)
        case Held():
            return ("held", answer.holder, answer.label, answer.ttl, answer.overdue, answer.begun)
        case Done():
            return ("done", answer.told)
        case Look():
            return (told(answer.held), told(answer.cooling))
        case None:
            return None
        case _:
            return ("cooling", answer.holder)


class Histories(RuleBasedStateMachine):
    set_up: SetUp
    redis: UnderTest

    @initialize()
    def begin(self) -> None:
        self.set_up.flush()
        self.stores: list[UnderTest] = [in_memory(), self.redis]
        self.tokens: list[dict[str, int]] = [{}, {}]

    def alike(self, answers: list[Any]) -> None:
        assert answers[0] == answers[1]

    @rule(key=KEYS, owner=OWNERS, heed=st.booleans(), remember=LENGTHS)
    def acquire(self, key: str, owner: Owner, heed: bool, remember: float) -> None:
        held = [under.store.look(key).held for under in self.stores]
        answers = [
            under.store.acquire(key, owner, TTL, heed_cooldown=heed, label=owner.run, remember=remember)
            for under in self.stores
        ]
        self.alike([told(answer) for answer in answers])
        for before, answer, tokens in zip(held, answers, self.tokens, strict=True):
            if isinstance(answer, Lease):
                again = before is not None and before.holder == answer.owner
                assert answer.token == tokens[key] if again else answer.token > tokens.get(key, 0)
                tokens[key] = answer.token

    @rule(key=KEYS, owner=OWNERS)
    def renew(self, key: str, owner: Owner) -> None:
        lease = Lease(key, str(owner), 1, TTL)
        self.alike([under.store.renew([lease]) for under in self.stores])

    @rule(key=KEYS, owner=OWNERS, cooldown=LENGTHS, remember=LENGTHS, told=st.booleans())
    def settle(self, key: str, owner: Owner, cooldown: float, remember: float, told: bool) -> None:
        lease = Lease(key, str(owner), 1, TTL)
        self.alike(
            [under.store.settle(lease, cooldown=cooldown, remember=remember, told=told) for under in self.stores]
        )

    @rule(key=KEYS, owner=OWNERS, remember=LENGTHS)
    def hold(self, key: str, owner: Owner, remember: float) -> None:
        lease = Lease(key, str(owner), 1, TTL)
        self.alike([under.store.hold(lease, 900.0, remember=remember) for under in self.stores])

    @rule(key=KEYS, owner=OWNERS, heed=st.booleans())
    def refuses(self, key: str, owner: Owner, heed: bool) -> None:
        self.alike([told(under.store.refuses(key, owner, heed_cooldown=heed)) for under in self.stores])

    @rule(key=KEYS, owner=OWNERS)
    def forget(self, key: str, owner: Owner) -> None:
        for under in self.stores:
            under.store.forget(key, owner)

    @rule(key=KEYS, owner=OWNERS, seconds=LENGTHS, remember=LENGTHS, told=st.booleans())
    def cool(self, key: str, owner: Owner, seconds: float, remember: float, told: bool) -> None:
        for under in self.stores:
            under.store.cool(key, owner, seconds, remember=remember, told=told)

    @rule(key=KEYS, owner=OWNERS, name=NAMES, value=FACTS, was=st.none() | FACTS, by_holder=st.booleans())
    def record(self, *, key: str, owner: Owner, name: str, value: str, was: str | None, by_holder: bool) -> None:
        lease = Lease(key, str(owner), 1, TTL)
        self.alike([under.store.record(lease, name, value, was=was, by_holder=by_holder) for under in self.stores])
        self.alike([under.store.records(key) for under in self.stores])

    @rule(key=KEYS, owner=OWNERS, names=st.lists(NAMES, min_size=1, unique=True))
    def erase(self, key: str, owner: Owner, names: list[str]) -> None:
        lease = Lease(key, str(owner), 1, TTL)
        self.alike([under.store.erase(lease, names) for under in self.stores])
        self.alike([under.store.records(key) for under in self.stores])

    @rule(key=KEYS, request=FACTS)
    def ask(self, key: str, request: str) -> None:
        for under in self.stores:
            under.store.ask(key, request, 600.0)
        self.alike([under.store.request(key) for under in self.stores])

    @rule(key=KEYS)
    def clear(self, key: str) -> None:
        self.alike([under.store.clear(key) for under in self.stores])

    @rule(key=KEYS)
    def look(self, key: str) -> None:
        self.alike([told(under.store.look(key)) for under in self.stores])

    @rule(key=KEYS)
    def lease_expires(self, key: str) -> None:
        for under in self.stores:
            under.expire_lease(key)

    @rule(key=KEYS)
    def cooldown_expires(self, key: str) -> None:
        for under in self.stores:
            under.expire_cooldown(key)


@pytest.mark.server
def test_both_stores_answer_any_history_alike(set_up: SetUp) -> None:
    redis = in_redis(set_up)
    machine = type("Histories", (Histories,), {"set_up": set_up, "redis": redis})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
    redis.store.close()
