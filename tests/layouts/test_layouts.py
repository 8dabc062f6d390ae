"""Two versions side by side, as in a rolling upgrade: ours, and one with a made-up next layout. They never both run."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from local_processes import PATIENCE, wait_until
from next_layout import NEXT, NextStore

from celery_coord.clock import SystemClock
from celery_coord.errors import CoordError, NewerLayout
from celery_coord.gate import Admitted, Claim, Ending, Gate, Kind, Unanswered
from celery_coord.keys import LEADER_PREFIX
from celery_coord.lease import Cooling, Done, Held, Lease, Owner
from celery_coord.operating import leaders, step_down
from celery_coord.renewal import Keeper
from celery_coord.stores.redis import RedisStore
from celery_coord.stores.redis.names import LAYOUT

pytestmark = pytest.mark.server
TTL = 30.0
MARK = "coord-layout:{coord:k}"
LOCK = "lock:{coord:k}"
LEADER = f"{LEADER_PREFIX}poller"


@pytest.fixture
def ours(redis_url: str) -> Iterator[RedisStore]:
    store = RedisStore.from_url(redis_url, timeout=5)
    yield store
    store.close()


@pytest.fixture
def theirs(redis_url: str) -> Iterator[NextStore]:
    store = NextStore.from_url(redis_url, timeout=5)
    assert isinstance(store, NextStore)
    yield store
    store.close()


def acquire(store: RedisStore, run: str = "run", *, key: str = "k") -> Lease:
    lease = store.acquire(key, Owner.new(run), TTL, heed_cooldown=True, remember=TTL)
    assert isinstance(lease, Lease)
    return lease


def test_who_finds_a_later_layout_admits_nobody(ours: RedisStore, theirs: NextStore) -> None:
    lease = acquire(theirs)

    for ask in (
        lambda: acquire(ours),
        lambda: ours.refuses("k", Owner.new("run"), heed_cooldown=True),
        lambda: ours.refuses("k", Owner.new("run"), heed_cooldown=False),
    ):
        with pytest.raises(NewerLayout, match=f"layout {NEXT}, known here: {LAYOUT}.*upgrade this process"):
            ask()

    theirs.settle(lease)
    acquire(ours)


def test_the_quiet_period_of_the_later_version_is_obeyed_too(ours: RedisStore, theirs: NextStore) -> None:
    theirs.settle(acquire(theirs), cooldown=60)

    with pytest.raises(NewerLayout):
        acquire(ours)


def test_the_later_version_obeys_what_the_earlier_one_wrote(ours: RedisStore, theirs: NextStore) -> None:
    lease = acquire(ours, "first")
    assert isinstance(theirs.acquire("k", Owner.new("other"), TTL, heed_cooldown=True), Held)

    ours.settle(lease, cooldown=60, remember=60)
    assert isinstance(theirs.acquire("k", Owner.new("other"), TTL, heed_cooldown=True), Cooling)

    ours.clear("k")
    assert isinstance(theirs.acquire("k", Owner.new("first"), TTL, heed_cooldown=True), Done)


def test_who_holds_a_lease_of_the_earlier_layout_keeps_it_to_its_end(ours: RedisStore, client: redis.Redis) -> None:
    lease = acquire(ours)
    client.set(MARK, NEXT)

    assert ours.renew([lease]) == [True]
    assert ours.settle(lease)


@pytest.mark.parametrize(("runs", "locks"), [("theirs", "ours"), ("ours", "theirs")])
def test_a_lock_of_one_version_is_not_had_beside_a_run_of_the_other(
    runs: str, locks: str, request: pytest.FixtureRequest
) -> None:
    """1. At most one holds the lease: `task.lock()` is python-redis-lock's, and asks for no layout."""
    of_runs, of_locks = request.getfixturevalue(runs), request.getfixturevalue(locks)
    lock = of_locks.lock("k", TTL, "shell")
    lease = acquire(of_runs)

    had = [lock.acquire(blocking=False)]
    assert of_runs.renew([lease]) == [True]
    had.append(lock.acquire(blocking=False))

    assert had == [False, False]
    assert of_runs.settle(lease)
    with lock:
        refused = of_runs.acquire("k", Owner.new("other"), TTL, heed_cooldown=True)
        assert isinstance(refused, Held)
        assert refused.holder == lock.id
    acquire(of_runs, "another")


def test_who_waits_for_a_lock_has_it_when_the_run_of_the_later_version_ends(
    ours: RedisStore, theirs: NextStore, client: redis.Redis
) -> None:
    lease, lock = acquire(theirs), ours.lock("k", 3600, "shell")
    waiter = threading.Thread(target=lock.acquire, daemon=True)
    waiter.start()
    wait_until(lambda: client.info("clients")["blocked_clients"], "it waits")

    theirs.settle(lease)
    waiter.join(PATIENCE)

    assert not waiter.is_alive()
    lock.release()


def test_the_later_version_keeps_the_lock_for_as_long_as_its_lease_and_touches_nobody_elses(
    theirs: NextStore, client: redis.Redis
) -> None:
    lease = acquire(theirs)
    client.pexpire(LOCK, int(TTL * 500))
    theirs.renew([lease])
    assert client.get(LOCK) == lease.owner
    assert client.pttl(LOCK) > TTL * 500

    client.set(LOCK, "another")
    assert theirs.renew([lease]) == [False]
    assert not theirs.settle(lease)
    assert client.get(LOCK) == "another"


def test_the_earlier_version_sees_of_the_later_ones_lease_its_owner_alone_and_of_its_quiet_period_nothing(
    ours: RedisStore, theirs: NextStore
) -> None:
    ours.settle(acquire(ours))
    lease = acquire(theirs)
    held = ours.look("k").held
    assert held is not None
    assert (held.holder, held.token, held.label) == (lease.owner, None, "")

    theirs.settle(lease, cooldown=60)
    assert not ours.look("k")
    assert not ours.clear("k")
    with pytest.raises(NewerLayout):
        acquire(ours)


def test_the_earlier_version_sees_no_leader_where_the_later_one_leads(
    redis_url: str, ours: RedisStore, theirs: NextStore
) -> None:
    """`coord leaders` and `coord step-down`; its beats and components follow all the same."""
    ours.settle(acquire(ours, key=LEADER))
    acquire(theirs, key=LEADER)
    app = Celery("earlier", broker="memory://", set_as_current=False)
    app.conf.update(coord_url=redis_url, coord_store_timeout=5)

    assert leaders(app) == []
    with pytest.raises(NewerLayout):
        acquire(ours, key=LEADER)
    with pytest.raises(CoordError, match="nobody leads poller"):
        step_down(app, "poller")


@pytest.mark.parametrize("number", [0, LAYOUT])
def test_a_layout_that_is_known_keeps_nobody_away(ours: RedisStore, client: redis.Redis, number: int) -> None:
    client.set(MARK, number)

    acquire(ours)


def test_two_versions_that_race_for_keys_never_both_run_a_body(redis_url: str) -> None:
    stores = [RedisStore.from_url(redis_url, timeout=5), NextStore.from_url(redis_url, timeout=5)]
    bodies = dict.fromkeys("abc", 0)
    overlaps: list[str] = []
    ran, kept_away = [0] * 8, [0] * 8  # each thread counts for itself
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        version = number % 2
        gate = Gate(
            stores[version], Keeper(stores[version], SystemClock(), lambda _: None), SystemClock(), lambda _: None
        )
        chance = random.Random(number)
        barrier.wait()
        for turn in range(150):
            key = chance.choice("abc")

            def body(key: str = key) -> None:
                bodies[key] += 1
                if bodies[key] != 1:
                    overlaps.append(key)
                time.sleep(0.001)
                bodies[key] -= 1

            claim = Claim(key, Owner.new(f"run-{number}-{turn}"), ttl=TTL)
            outcome = gate.admit(claim, body, lambda _: Ending(Kind.WELL))
            ran[number] += isinstance(outcome, Admitted)
            kept_away[number] += isinstance(outcome, Held | Unanswered)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()

    assert overlaps == []
    for counted in (ran, kept_away):
        assert min(sum(counted[version::2]) for version in (0, 1)) > 0
    assert sum(ran) + sum(kept_away) == 8 * 150
