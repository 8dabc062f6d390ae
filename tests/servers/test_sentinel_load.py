"""Promotions while runs and candidates compete for keys, judged by `load_judge`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Self

import pytest
from local_processes import wait_until

from celery_coord.clock import SystemClock
from celery_coord.election import Candidate
from celery_coord.events import Event, LeaderElected
from celery_coord.stores import Store
from celery_coord.testing import LocalServer
from tests.servers.load_judge import UNANSWERED
from tests.servers.load_members import TTL, Load, store_at
from tests.servers.local_sentinel import LocalSentinel

KEYS = [f"cluster:{n}" for n in range(4)]


@pytest.fixture(scope="module")
def set_up(server: LocalServer) -> Iterator[LocalSentinel]:
    with LocalSentinel(replicas=2) as started:
        yield started


def opener(sentinel: LocalSentinel, min_replicas: int = 0) -> Callable[[], Store]:
    return lambda: store_at(sentinel.url, min_replicas=min_replicas, timeout=1.0)


def test_the_death_of_a_primary_whose_replicas_know_all_breaks_no_promise(sentinel: LocalSentinel) -> None:
    with Load(opener(sentinel), KEYS) as load:
        sentinel.wait_for_new_primary(sentinel.kill_primary())
        load.wait_until_all_ran(time.monotonic())
        verdict = load.finish()

    assert verdict.objections == []


def test_a_promotion_that_lost_leases_still_lets_tokens_grow_and_starts_no_refused_body(
    sentinel: LocalSentinel,
) -> None:
    with Load(opener(sentinel), KEYS) as load:
        old = sentinel.cut_replication()
        load.wait_until_all_ran(time.monotonic())  # what is granted now is lost
        old.kill()
        sentinel.wait_for_new_primary(old)
        load.wait_until_all_ran(time.monotonic())
        verdict = load.finish()

    assert verdict.wrong == []


def test_the_same_promotion_admits_no_second_holder_where_a_replica_has_to_confirm(sentinel: LocalSentinel) -> None:
    with Load(opener(sentinel, min_replicas=1), KEYS) as load:
        old = sentinel.cut_replication()
        cut = time.monotonic()
        wait_until(lambda: any(run.outcome == UNANSWERED for run in load.history.runs), "a run that nobody confirms")
        assert not load.history.ran_since(cut)
        old.kill()
        sentinel.wait_for_new_primary(old)
        load.wait_until_all_ran(time.monotonic())
        verdict = load.finish()

    assert verdict.objections == []


def test_terms_grow_over_a_promotion_and_never_do_two_lead_where_a_replica_has_to_confirm(
    sentinel: LocalSentinel,
) -> None:
    stores = [opener(sentinel, min_replicas=1)() for _ in range(2)]
    events: list[Event] = []
    candidates = [
        Candidate("beat", store=store, clock=SystemClock(), ttl=TTL, label=f"{n}", notify=events.append)
        for n, store in enumerate(stores)
    ]
    with Watch(candidates) as watch:
        for candidate in candidates:
            candidate.campaign()
        wait_until(lambda: any(candidate.leads for candidate in candidates), "a leader")
        old = sentinel.cut_replication()
        old.kill()
        sentinel.wait_for_new_primary(old)
        leader = wait_until(lambda: next((one for one in candidates if one.leads), None), "a leader after it")
        assert leader is not None
        leader.resign()
        wait_until(lambda: any(one.leads for one in candidates if one is not leader), "another leader")
    for candidate, store in zip(candidates, stores, strict=True):
        candidate.resign()
        store.close()

    terms = [event.term for event in events if isinstance(event, LeaderElected)]
    assert terms == sorted(set(terms))
    assert len(terms) > 1
    assert watch.both == []


class Watch:
    """Looks, all the time, whether two lead at one instant."""

    def __init__(self, candidates: list[Candidate]) -> None:
        self.both: list[tuple[int, int]] = []
        self._candidates = candidates
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        one, other = self._candidates
        while not self._ends.wait(0.001):
            before, between, after = one.term, other.term, one.term
            if before is not None and before == after and between is not None:
                self.both.append((before, between))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()
