"""What `coord_min_replicas` promises, step by step: nothing counts that not so many replicas have confirmed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from local_processes import wait_until

from celery_coord.errors import StoreError
from celery_coord.gate import Claim, Ending, Kind, Unanswered
from celery_coord.lease import Held, Lease, Owner
from celery_coord.stores.redis import RedisStore
from celery_coord.testing import LocalServer
from tests.servers.keeping import Kept
from tests.servers.load_members import Member, store_at
from tests.servers.local_nodes import Node
from tests.servers.local_sentinel import SLOW, LocalSentinel
from tests.servers.local_watcher import Watcher

KEY = "report:7"
TTL = 300.0
#: Soon over where no replica confirms. A server may be slower than that: what has to be answered is asked for again.
TIMEOUT = 0.6
Open = Callable[[int], RedisStore]


@pytest.fixture(scope="module")
def set_up(server: LocalServer) -> Iterator[LocalSentinel]:
    with LocalSentinel(replicas=2) as started:
        yield started


@pytest.fixture
def opened(sentinel: LocalSentinel, kept: Kept) -> Open:
    """Stores that ask for so many replicas."""

    def open_one(min_replicas: int) -> RedisStore:
        return kept(store_at(sentinel.url, min_replicas=min_replicas, timeout=TIMEOUT))

    return open_one


def acquire(store: RedisStore, owner: Owner | None = None, key: str = KEY) -> object:
    return store.acquire(key, owner or Owner.new("run"), TTL, heed_cooldown=True)


def granted(store: RedisStore, key: str = KEY) -> Lease:
    """A lease; what is answered first is that. One owner asks: what it was not told that it has is granted it again."""
    owner = Owner.new("run")
    lease = wait_until(lambda: _answer(store, owner, key), "an answer")
    assert isinstance(lease, Lease)
    return lease


def _answer(store: RedisStore, owner: Owner | None = None, key: str = KEY) -> object:
    try:
        return acquire(store, owner, key)
    except StoreError:
        return None


def settled(store: RedisStore, lease: Lease) -> bool:
    """Whether a lease was ended, as soon as that is confirmed; asked again, it was."""

    def answers() -> list[bool]:
        try:
            return [store.settle(lease)]
        except StoreError:
            return []

    [was_ours] = wait_until(answers, "an answer")
    return was_ours


def test_a_lease_that_no_replica_knows_of_is_not_granted_and_is_given_back(
    sentinel: LocalSentinel, opened: Open
) -> None:
    member = Member(opened(1))
    sentinel.cut_replication()
    ran: list[int] = []

    answer = member.gate.admit(
        Claim(KEY, Owner.new("run"), ttl=TTL), lambda: ran.append(1), lambda _: Ending(Kind.WELL)
    )

    assert isinstance(answer, Unanswered)
    assert not ran
    sentinel.mend()
    store = opened(0)
    wait_until(lambda: is_free(store), "a key that is free, long before the ttl has passed")


def is_free(store: RedisStore) -> bool:
    try:
        return not store.look(KEY)
    except StoreError:
        return False


def test_without_replicas_nothing_is_renewed_settled_or_written_down(sentinel: LocalSentinel, opened: Open) -> None:
    store = opened(1)
    lease = granted(store)
    sentinel.cut_replication()

    [renewed] = store.renew([lease])

    assert isinstance(renewed, StoreError)
    with pytest.raises(StoreError):
        store.record(lease, "run:a", "1.5 1")
    with pytest.raises(StoreError):
        store.settle(lease)


def test_what_was_not_confirmed_is_not_confirmed_by_asking_again(sentinel: LocalSentinel, opened: Open) -> None:
    """The replicas are there, and behind. What is asked again finds its own words, and they have not."""
    store = opened(1)
    lease = granted(store)
    for replica in sentinel.replicas:
        replica.pause()

    for _ in range(2):
        with pytest.raises(StoreError):
            store.record(lease, "run:a", "1.5 1")
        store.close()  # another connection: a server may ask for what was written on this one only
    for _ in range(2):
        with pytest.raises(StoreError):
            store.settle(lease)
        store.close()


def test_a_lease_that_was_granted_survives_the_promotion_that_would_have_lost_it(
    sentinel: LocalSentinel, opened: Open
) -> None:
    one, other = opened(1), opened(1)
    lease = granted(one)
    old = sentinel.cut_replication()
    with pytest.raises(StoreError):
        other.acquire("another", Owner.new("run"), TTL, heed_cooldown=True)
    old.kill()
    sentinel.wait_for_new_primary(old)

    refused = wait_until(lambda: _answer(other), "an answer of the new primary")

    assert isinstance(refused, Held)
    assert refused.holder == lease.owner
    wait_until(lambda: one.renew([lease]) == [True], "a renewal that the other replica confirms")
    assert settled(one, lease)


def test_a_primary_that_slept_through_its_replacement_neither_grants_nor_renews(
    sentinel: LocalSentinel, opened: Open
) -> None:
    one, other = opened(1), opened(1)
    sentinel.hurry(**SLOW)  # it believes in itself for as long as it does by default
    kept = granted(one, "kept")
    wait_until(lambda: one.renew([kept]) == [True], "a renewal that is confirmed")
    assert settled(one, granted(one))  # its connections stay open
    old = sentinel.pause()
    new = sentinel.wait_for_new_primary(old)
    second = granted(other)
    new.client.delete("lock:{coord:kept}")  # there it has run out meanwhile
    old.wake()

    answer = _answer(one)
    [renewed] = one.renew([kept])

    assert answer is None or isinstance(answer, Held), f"{answer} was granted beside {second}"
    assert renewed is not True


def is_never(replica: Node, watcher: Watcher) -> bool:
    """Whether a sentinel has heard that a replica is not to be promoted."""
    known = {state["port"]: state["slave-priority"] for state in watcher.replicas()}
    return known[str(replica.port)] == "0"


def test_one_replica_of_two_is_no_consensus(sentinel: LocalSentinel, opened: Open) -> None:
    """The lease is where it has to be, and yet lost: another replica is promoted."""
    one, other = opened(1), opened(1)
    old = sentinel.primary
    behind, ahead = sentinel.replicas
    behind.fall_behind(old)
    lease = granted(one)
    ahead.client.config_set("replica-priority", 0)  # never promoted; what decides otherwise is not for us to say
    try:
        wait_until(lambda: all(is_never(ahead, watcher) for watcher in sentinel.sentinels), "sentinels that know it")
        old.kill()
        assert sentinel.wait_for_new_primary(old) is behind
        second = granted(other)
    finally:
        ahead.client.config_set("replica-priority", 100)

    assert second.token > lease.token


def test_a_lease_that_every_replica_has_to_know_is_not_granted_where_one_is_behind(
    sentinel: LocalSentinel, opened: Open
) -> None:
    behind, _ = sentinel.replicas
    behind.fall_behind(sentinel.primary)

    with pytest.raises(StoreError):
        acquire(opened(2))
