"""The store has acted, and its answer is lost: who asks once more gets what he would have got, and nothing twice."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import pytest
from local_processes import wait_until
from proxy import Line
from scene import LONG, Process, Scene

from celery_coord.gate import Admitted
from celery_coord.lease import Lease, Owner
from celery_coord.stores import Store

_numbers = itertools.count(1)


@pytest.fixture
def store(scene: Scene) -> Store:
    return scene.process.coordination.store


def granted(store: Store, key: str) -> Lease:
    lease = store.acquire(key, Owner.new(f"run on {key}, {next(_numbers)}"), LONG, heed_cooldown=True)
    assert isinstance(lease, Lease)
    return lease


def test_who_was_granted_is_granted_again(scene: Scene) -> None:
    """1. The run holds its key, with the token of the first grant, and refuses itself nothing."""
    scene.proxy.lose_answers(1)

    body = scene.process.begin("k", ttl=LONG)

    assert scene.proxy.lost_all
    assert body.token == int(str(scene.client.get(lease_name(scene))).partition("\n")[0])
    assert not scene.process.said("store_failed")


def test_what_was_settled_is_not_settled_twice(scene: Scene) -> None:
    """12. The quiet period begins once, and the end is told as what it is."""
    body = scene.process.begin("k", ttl=LONG)
    scene.proxy.lose_answers(1)

    assert isinstance(body.end(), Admitted)

    assert scene.proxy.lost_all
    assert scene.is_cooling("k")
    assert len(scene.process.said("cooldown_started", key="k")) == 1
    assert len(scene.process.said("lease_released", key="k")) == 1
    assert not scene.process.said("lease_lost")
    assert not scene.process.said("store_failed")


def test_an_end_is_told_as_what_it_is_though_the_one_who_waited_for_it_was_faster(scene: Scene) -> None:
    """12. Between the two questions another took the key, and settled nothing of ours: our end was no loss."""
    body = scene.process.begin("k", ttl=LONG)
    with Process(scene.server.url) as elsewhere:
        lock = elsewhere.coordination.store.lock("k", LONG, "another")
        waits = threading.Thread(target=lock.acquire)
        waits.start()
        wait_until(lambda: scene.client.info("clients")["blocked_clients"], "one who waits")
        scene.proxy.lose_answers(1)

        assert isinstance(body.end(), Admitted)
        waits.join(10)
        lock.release()

    assert scene.is_cooling("k")
    assert not scene.process.said("lease_lost")
    assert not scene.process.said("lease_outlived")


def test_a_second_settlement_does_not_begin_the_quiet_period_anew(scene: Scene, store: Store) -> None:
    """12. Also where others have been there between the two: what they hold is theirs."""
    lease = granted(store, "k")
    assert store.settle(lease, cooldown=60, remember=600)
    store.clear("k")

    assert store.settle(lease, cooldown=60, remember=600)

    assert not scene.is_cooling("k")
    other = granted(store, "k")
    assert store.settle(lease, cooldown=60, remember=600)
    assert scene.lock("k") == other.owner
    assert not scene.is_cooling("k")


def test_a_lease_whose_renewal_was_not_heard_of_is_renewed_again(scene: Scene) -> None:
    """5. A lost answer is no loss of the lease."""
    body = scene.process.begin("k")
    scene.proxy.lose_answers(1)

    wait_until(lambda: scene.proxy.lost_all, "a renewal whose answer is lost")
    scene.wait_for_renewal("k")

    assert not body.lost
    assert isinstance(body.end(), Admitted)
    assert not scene.process.said("lease_lost")


ACTS: dict[str, Callable[[Store, Lease], object]] = {
    "hold": lambda store, lease: store.hold(lease, 30, remember=600),
    "record": lambda store, lease: store.record(lease, "fact", "value", was="").by_us,
    "erase": lambda store, lease: store.erase(lease, ["fact"]),
    "renew": lambda store, lease: store.renew([lease]) == [True],
    "cool": lambda store, lease: store.cool("other", Owner.new("run"), 60, remember=600) is None,
    "ask": lambda store, lease: store.ask("k", "please", 60) is None,
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_act_whose_answer_was_lost_is_done_once_and_says_so(
    scene: Scene, store: Store, act: Callable[[Store, Lease], object]
) -> None:
    act(store, granted(store, "another"))  # the server knows its script: else it would be this answer that gets lost
    lease = granted(store, "k")
    scene.proxy.lose_answers(1)

    assert act(store, lease)

    assert scene.proxy.lost_all


def test_a_leader_that_did_not_hear_of_its_election_leads_the_same_term(scene: Scene) -> None:
    """14. It asks as the same owner until it is heard: so it never waits for its own lease to end."""
    candidate = scene.process.coordination.candidate("elected", ttl=LONG)
    with scene.proxy.being(Line.MUTE):
        candidate.round()
        assert not candidate.leads
    elected_unheard = scene.lock("leader:elected")

    candidate.round()

    assert candidate.leads
    assert candidate.lease
    assert candidate.lease.owner == elected_unheard


def test_a_run_that_never_hears_that_it_was_admitted_leaves_no_lease_behind(scene: Scene) -> None:
    """9. What the store grants to nobody is given back, long before its ttl is over."""
    with scene.proxy.being(Line.MUTE):
        scene.process.ask("k", ttl=LONG)
        assert scene.client.get(lease_name(scene)), "it was granted"

    wait_until(lambda: scene.lock("k") is None, "the lease is given back", timeout=LONG / 2)


def test_who_asks_next_in_the_same_process_is_not_kept_away_by_what_was_granted_unheard(scene: Scene) -> None:
    """8. The run that was granted it does not exist: nobody is dropped on its account."""
    with scene.proxy.being(Line.MUTE):
        scene.process.ask("k", ttl=LONG)

    assert isinstance(scene.process.ask("k", ttl=LONG), Admitted)


def test_an_end_that_was_never_answered_stays_what_it_was(scene: Scene) -> None:
    """12. The store settled it at once; that it is asked again later changes nothing for who came since."""
    body = scene.process.begin("k", ttl=LONG)
    with scene.proxy.being(Line.MUTE):
        body.end()
        assert scene.lock("k") is None
        scene.client.delete("coord1-cooldown:{coord:k}", "coord-cooldown:{coord:k}")
    other = scene.another().begin("k", ttl=LONG)

    scene.process.wait_for("store_failed", doing="settling k")
    assert isinstance(scene.process.ask("unrelated"), Admitted)
    later_is_over(scene)

    assert not other.lost
    assert scene.lock("k") == other.holding.lease.owner  # type: ignore[union-attr]
    assert not scene.is_cooling("k")


def later_is_over(scene: Scene) -> None:
    """Until the keeper has done what was left for later."""
    keeper = scene.process.coordination.keeper
    wait_until(lambda: not (keeper._later or keeper._awaited), "nothing is left for later")


def lease_name(scene: Scene) -> str:
    [name] = scene.client.keys("coord*-lease:{coord:k}")
    return str(name)
