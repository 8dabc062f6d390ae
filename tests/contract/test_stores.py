"""What every store must do: one suite for all of them."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace

import pytest
from local_processes import wait_until
from under import UnderTest

from celery_coord.lease import Cooling, Done, Held, Lease, Owner, Recorded
from celery_coord.stores import Store

TTL = 60.0


_runs = itertools.count(1)


def anybody() -> Owner:
    """A run that nobody else is."""
    return Owner.new(f"run-{next(_runs)}")


def acquire(store: Store, key: str = "k", owner: Owner | None = None, *, heed_cooldown: bool = True) -> Lease:
    answer = store.acquire(key, owner or anybody(), TTL, heed_cooldown=heed_cooldown, label="here")
    assert isinstance(answer, Lease)
    return answer


def test_a_free_key_is_leased(store: Store) -> None:
    owner = Owner.new("run")

    lease = acquire(store, "k", owner)

    assert (lease.key, lease.owner, lease.ttl) == ("k", str(owner), TTL)
    held = store.look("k").held
    assert held is not None
    assert (held.holder, held.token, held.label) == (str(owner), lease.token, "here")
    assert held.left is not None
    assert 0 < held.left <= TTL


def test_a_held_key_is_refused_with_holder_token_label_and_time_left(store: Store) -> None:
    lease = acquire(store)

    refusal = store.acquire("k", Owner.new("other"), TTL, heed_cooldown=True)

    assert isinstance(refusal, Held)
    assert (refusal.key, refusal.holder, refusal.token, refusal.label) == ("k", lease.owner, lease.token, "here")
    assert refusal.left is not None
    assert 0 < refusal.left <= TTL


def test_keys_do_not_touch_each_other(store: Store) -> None:
    one, two = acquire(store, "one"), acquire(store, "two")

    store.settle(one, cooldown=60)

    assert store.look("one").cooling
    look = store.look("two")
    assert look.cooling is None
    assert look.held is not None
    assert look.held.holder == two.owner


def test_an_owner_that_asks_again_is_granted_the_same_lease_again(store: Store) -> None:
    """An answer may be lost on its way, and the client asks once more."""
    owner = Owner.new("run")

    assert acquire(store, "k", owner) == acquire(store, "k", owner)


def test_a_token_is_larger_than_every_earlier_one(under_test: UnderTest) -> None:
    store, tokens = under_test.store, []
    for ending in ("settle", "expire", "settle", "expire"):
        lease = acquire(store)
        tokens.append(lease.token)
        if ending == "settle":
            store.settle(lease)
        else:
            under_test.expire_lease("k")

    assert tokens == sorted(set(tokens))


def test_a_later_generation_of_a_run_takes_over_and_an_earlier_one_or_a_stranger_does_not(store: Store) -> None:
    first = acquire(store, owner=Owner.new("run", 1))

    assert isinstance(store.acquire("k", Owner.new("run", 1), TTL, heed_cooldown=True), Held)
    assert isinstance(store.acquire("k", Owner.new("run", 0), TTL, heed_cooldown=True), Held)
    assert isinstance(store.acquire("k", Owner.new("other", 2), TTL, heed_cooldown=True), Held)
    retry = acquire(store, owner=Owner.new("run", 2))
    assert retry.token > first.token
    assert store.renew([first]) == [False]
    assert store.settle(first) is False


def test_an_expired_lease_is_nobodys(under_test: UnderTest) -> None:
    store = under_test.store
    lease = acquire(store)

    under_test.expire_lease("k")

    assert not store.look("k")
    assert store.renew([lease]) == [False]
    assert store.settle(lease, cooldown=60) is False
    assert not store.look("k")


def test_leases_are_renewed_in_one_go_and_only_for_their_owner(under_test: UnderTest) -> None:
    store = under_test.store
    one, two, three = (acquire(store, key) for key in ("one", "two", "three"))
    under_test.expire_lease("two")
    usurper = acquire(store, "two")

    assert store.renew([one, two, three]) == [True, False, True]
    assert store.renew([]) == []
    held = store.look("two").held
    assert held is not None
    assert held.holder == usurper.owner


def test_settling_ends_the_lease_and_begins_the_quiet_period_in_one_step(store: Store) -> None:
    lease = acquire(store)

    assert store.settle(lease, cooldown=60)

    look = store.look("k")
    assert look.held is None
    assert look.cooling is not None
    assert look.cooling.holder == lease.owner
    assert look.cooling.left is not None
    assert 0 < look.cooling.left <= 60


def test_settling_without_a_quiet_period_leaves_nothing(store: Store) -> None:
    assert store.settle(acquire(store))

    assert not store.look("k")


def test_settled_once_is_settled(store: Store) -> None:
    """The answer may be lost on its way, and the client asks once more."""
    lease = acquire(store)

    assert store.settle(lease, cooldown=60)
    assert store.settle(lease, cooldown=60)


def test_a_quiet_period_begins_only_if_the_lease_was_still_ours(under_test: UnderTest) -> None:
    store = under_test.store
    lost = acquire(store)
    under_test.expire_lease("k")
    usurper = acquire(store)

    assert store.settle(lost, cooldown=60) is False

    look = store.look("k")
    assert look.cooling is None
    assert look.held is not None
    assert look.held.holder == usurper.owner


def test_a_cooling_key_is_refused_to_those_who_heed_it_with_who_left_it_and_time_left(store: Store) -> None:
    lease = acquire(store)
    store.settle(lease, cooldown=60)

    refusal = store.acquire("k", anybody(), TTL, heed_cooldown=True)

    assert isinstance(refusal, Cooling)
    assert refusal.holder == lease.owner
    assert refusal.left is not None
    assert 0 < refusal.left <= 60
    assert store.look("k").held is None
    assert acquire(store, heed_cooldown=False)


def test_a_quiet_period_ends_by_itself(under_test: UnderTest) -> None:
    store = under_test.store
    store.settle(acquire(store), cooldown=60)

    under_test.expire_cooldown("k")

    assert acquire(store)


def test_a_quiet_period_that_lasts_longer_stays(store: Store) -> None:
    owner = Owner.new("run")
    store.cool("k", owner, 600)
    store.cool("k", Owner.new("other"), 60)
    store.settle(acquire(store, heed_cooldown=False), cooldown=60)

    cooling = store.look("k").cooling

    assert cooling is not None
    assert cooling.holder == str(owner)
    assert cooling.left is not None
    assert cooling.left > 60


def test_a_quiet_period_can_be_cleared_and_begun_without_a_lease(store: Store) -> None:
    owner = Owner.new("run")
    store.cool("k", owner, 60)

    cooling = store.look("k").cooling
    assert cooling is not None
    assert cooling.holder == str(owner)
    assert store.clear("k") is True
    assert store.clear("k") is False
    assert not store.look("k")


def test_those_who_wait_are_woken_when_the_lease_is_settled(under_test: UnderTest) -> None:
    store = under_test.store
    lease = acquire(store)
    woken = threading.Event()

    def wait() -> None:
        deadline = time.monotonic() + 30
        while store.look("k").held and time.monotonic() < deadline:
            store.wait("k", 30)
        woken.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(under_test.waiting, "one who waits")
    store.settle(lease)

    assert woken.wait(20)
    waiter.join()


def test_no_two_threads_hold_a_key_at_once(store: Store) -> None:
    """Read, increment, write on a plain number: an overlap loses a count."""
    counter, tokens, rounds = [0], [], 25

    def work() -> None:
        done = 0
        while done < rounds:
            lease = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True)
            if isinstance(lease, Lease):
                seen = counter[0]
                tokens.append(lease.token)
                time.sleep(0)
                counter[0] = seen + 1
                assert store.settle(lease)
                done += 1
            else:
                store.wait("k", 0.01)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counter == [8 * rounds]
    assert tokens == sorted(set(tokens))


def test_a_store_that_is_there_passes_its_check(store: Store) -> None:
    store.check()


@pytest.mark.parametrize("key", ["plain", "with space", "späti", 'quotes"', "a" * 500, "colon:slash/{x}"])
def test_any_text_is_a_key(store: Store, key: str) -> None:
    lease = acquire(store, key)

    assert isinstance(store.acquire(key, Owner.new("other"), TTL, heed_cooldown=True), Held)
    assert store.settle(lease)


def test_a_run_that_is_remembered_as_done_is_told_so_before_all_else(store: Store) -> None:
    owner = Owner.new("run", 1)
    store.settle(acquire(store, owner=owner), cooldown=60, remember=600, told=False)
    acquire(store, heed_cooldown=False)

    for generation in (0, 1):
        done = store.acquire("k", Owner.new("run", generation), TTL, heed_cooldown=True)
        assert isinstance(done, Done)
        assert (done.key, done.told) == ("k", False)
        assert 0 <= done.age < 60
    assert isinstance(store.acquire("k", Owner.new("run", 2), TTL, heed_cooldown=False), Held)
    assert isinstance(store.acquire("other", Owner.new("run", 1), TTL, heed_cooldown=True), Lease)


def test_a_run_is_remembered_by_its_latest_generation(store: Store) -> None:
    """A retry may have ended before the run that published it has."""
    first, retry = acquire(store, owner=Owner.new("run", 0)), acquire(store, owner=Owner.new("run", 1))
    assert store.settle(retry, remember=600)
    assert store.settle(first, remember=600) is False

    assert isinstance(store.acquire("k", Owner.new("run", 1), TTL, heed_cooldown=True), Done)


def test_a_run_that_lost_its_lease_is_remembered_all_the_same(under_test: UnderTest) -> None:
    store, owner = under_test.store, Owner.new("run")
    lease = acquire(store, owner=owner)
    under_test.expire_lease("k")

    assert store.settle(lease, cooldown=60, remember=600) is False

    assert isinstance(store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True), Done)
    assert not store.look("k")


def test_what_is_not_to_be_remembered_is_not(store: Store) -> None:
    store.settle(acquire(store, owner=Owner.new("run")))

    assert isinstance(store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True), Lease)


def test_what_is_remembered_can_be_forgotten(store: Store) -> None:
    owner = Owner.new("run")
    store.settle(acquire(store, owner=owner), remember=600)

    store.forget("k", owner)
    store.forget("k", owner)

    assert isinstance(store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True), Lease)


def test_a_run_is_not_refused_by_the_quiet_period_that_it_left_itself(store: Store) -> None:
    """It failed, or else it would be remembered; and others are refused."""
    store.settle(acquire(store, owner=Owner.new("run")), cooldown=60)

    assert isinstance(store.acquire("k", anybody(), TTL, heed_cooldown=True), Cooling)
    assert isinstance(store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True), Lease)


def test_a_key_that_is_kept_is_for_the_next_generation_alone(store: Store) -> None:
    lease = acquire(store, owner=Owner.new("run", 1))

    assert store.hold(lease, 600, remember=600)
    assert store.hold(lease, 600, remember=600)

    assert store.renew([lease]) == [False]
    assert store.settle(lease, cooldown=60) is False
    held = store.acquire("k", anybody(), TTL, heed_cooldown=True)
    assert isinstance(held, Held)
    assert (held.token, held.label, held.overdue) == (lease.token, "here", False)
    assert held.left is not None
    assert held.left > TTL
    assert isinstance(store.acquire("k", Owner.new("run", 1), TTL, heed_cooldown=True), Done)
    retry = acquire(store, owner=Owner.new("run", 2))
    assert retry.token > lease.token
    left = store.look("k").held.left  # type: ignore[union-attr]
    assert left is not None
    assert left <= TTL


def test_a_key_is_kept_only_for_its_owner(under_test: UnderTest) -> None:
    store = under_test.store
    lost = acquire(store)
    under_test.expire_lease("k")
    usurper = acquire(store)

    assert store.hold(lost, 600) is False

    held = store.look("k").held
    assert held is not None
    assert held.holder == usurper.owner


def test_a_run_without_a_lease_is_kept_away_by_a_quiet_period_and_by_its_own_end(store: Store) -> None:
    owner = Owner.new("run")
    assert store.refuses("k", owner, heed_cooldown=True) is None

    store.cool("k", owner, 60, remember=600, told=True)

    done, cooling = (
        store.refuses("k", Owner.new("run"), heed_cooldown=True),
        store.refuses("k", anybody(), heed_cooldown=True),
    )
    assert isinstance(done, Done)
    assert done.told
    assert isinstance(cooling, Cooling)
    assert cooling.holder == str(owner)
    assert store.refuses("k", anybody(), heed_cooldown=False) is None
    assert isinstance(store.refuses("k", Owner.new("run"), heed_cooldown=False), Done)
    store.forget("k", owner)
    assert store.refuses("k", Owner.new("run"), heed_cooldown=True) is None


def test_a_run_can_be_remembered_without_a_quiet_period(store: Store) -> None:
    store.cool("k", Owner.new("run"), 0.0, remember=600)

    assert isinstance(store.refuses("k", Owner.new("run"), heed_cooldown=True), Done)
    assert store.refuses("k", anybody(), heed_cooldown=True) is None


def test_a_holder_that_has_missed_a_renewal_is_overdue(under_test: UnderTest) -> None:
    store = under_test.store
    acquire(store)
    fresh = store.look("k").held

    under_test.age_lease("k", TTL / 2)
    stale = store.acquire("k", anybody(), TTL, heed_cooldown=True)

    assert fresh is not None
    assert fresh.ttl == TTL
    assert not fresh.overdue
    assert isinstance(stale, Held)
    assert stale.overdue


def test_an_end_that_was_not_told_can_be_called_told_and_not_the_other_way_round(store: Store) -> None:
    lease = acquire(store, owner=Owner.new("run", 1))
    store.settle(lease, cooldown=900, remember=600, told=False)

    def told() -> object:
        done = store.refuses("k", Owner.new("run", 1), heed_cooldown=False)
        return done.told if isinstance(done, Done) else done

    assert told() is False
    store.cool("k", Owner.new("run", 0), 0.0, remember=600, told=True)
    assert told() is False
    store.cool("k", Owner.new("run", 1), 0.0, remember=600, told=True)
    assert told() is True
    store.cool("k", Owner.new("run", 1), 0.0, remember=600, told=False)
    assert told() is True


def test_a_run_that_was_admitted_before_is_known_as_begun(under_test: UnderTest) -> None:
    """A stranger may be faster than the second delivery of a message whose first one died."""
    store = under_test.store
    first = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600)
    assert isinstance(first, Lease)
    under_test.expire_lease("k")
    stranger = acquire(store)

    again = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600)
    other = store.acquire("k", anybody(), TTL, heed_cooldown=True, remember=600)

    assert isinstance(again, Held)
    assert isinstance(other, Held)
    assert (again.holder, again.begun, other.begun) == (stranger.owner, True, False)
    assert store.refuses("k", Owner.new("run"), heed_cooldown=False) is None
    under_test.expire_lease("k")
    assert isinstance(store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600), Lease)


def test_a_run_is_known_as_begun_for_as_long_after_its_last_renewal_as_after_its_beginning(
    under_test: UnderTest,
) -> None:
    """7. Its message may come again however long the body ran before it died."""
    store = under_test.store
    lease = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600)
    assert isinstance(lease, Lease)
    under_test.age_run("k", "run", 500)

    assert store.renew([lease]) == [True]

    under_test.age_run("k", "run", 500)
    under_test.expire_lease("k")
    acquire(store)
    again = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600)
    assert isinstance(again, Held)
    assert again.begun


def test_a_run_is_known_as_begun_for_as_long_after_its_second_admission_as_after_its_first(
    under_test: UnderTest,
) -> None:
    """7. That may have died before it was renewed."""
    store = under_test.store
    for _ in range(2):
        lease = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600)
        assert isinstance(lease, Lease)
        under_test.age_run("k", "run", 500)
        under_test.expire_lease("k")

    acquire(store)
    again = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600)

    assert isinstance(again, Held)
    assert again.begun


def test_a_renewal_lets_nothing_be_remembered_for_less_long(under_test: UnderTest) -> None:
    """Nor does it remember what was not to be."""
    store = under_test.store
    long = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600)
    none = store.acquire("other", Owner.new("run"), TTL, heed_cooldown=True)
    assert isinstance(long, Lease)
    assert isinstance(none, Lease)

    assert store.renew([replace(long, remember=10), none]) == [True, True]

    under_test.age_run("k", "run", 500)
    for key in ("k", "other"):
        under_test.expire_lease(key)
        acquire(store, key)
    again, other = (
        store.acquire(key, Owner.new("run"), TTL, heed_cooldown=True, remember=600) for key in ("k", "other")
    )
    assert isinstance(again, Held)
    assert isinstance(other, Held)
    assert (again.begun, other.begun) == (True, False)


def test_a_run_that_has_begun_is_remembered_as_done_when_it_is(store: Store) -> None:
    lease = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600)
    assert isinstance(lease, Lease)

    store.settle(lease, remember=600, told=True)

    assert isinstance(store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True, remember=600), Done)


def test_a_holder_writes_facts_down_that_outlive_its_lease(under_test: UnderTest) -> None:
    store = under_test.store
    lease = acquire(store)

    assert store.record(lease, "run:nightly", "1.5 7", was="") == Recorded(by_us=True, lost=False, value="1.5 7")
    assert store.record(lease, "act", "tidied").by_us

    store.settle(lease)
    assert store.records("k") == {"run:nightly": "1.5 7", "act": "tidied"}
    assert store.records("another") == {}


def test_a_fact_is_written_only_over_what_the_writer_knew(store: Store) -> None:
    lease = acquire(store)
    store.record(lease, "fact", "one", was="")

    assert store.record(lease, "fact", "two", was="") == Recorded(by_us=False, lost=False, value="one")
    assert store.record(lease, "fact", "two", was="zero") == Recorded(by_us=False, lost=False, value="one")
    assert store.record(lease, "fact", "two", was="one").by_us
    assert store.record(lease, "fact", "two", was="one").by_us, "an answer may be lost on its way"
    assert store.record(lease, "fact", "three").by_us, "whatever was there"
    assert store.record(lease, "none", "one", was="one") == Recorded(by_us=False, lost=False, value="")


def test_a_fact_is_written_only_by_the_holder_and_taken_back_by_one_who_was(under_test: UnderTest) -> None:
    store = under_test.store
    past = acquire(store)
    store.record(past, "fact", "one", was="")
    under_test.expire_lease("k")

    assert store.record(past, "fact", "two", was="one") == Recorded(by_us=False, lost=True, value="two")
    acquire(store)
    assert store.record(past, "fact", "two", was="one").lost
    assert store.record(past, "fact", "", was="other", by_holder=False).value == "one"
    assert store.record(past, "fact", "", was="one", by_holder=False).by_us
    assert store.records("k") == {}


def test_facts_are_erased_by_the_holder_alone(under_test: UnderTest) -> None:
    store = under_test.store
    past = acquire(store)
    for name in ("one", "two", "three"):
        store.record(past, name, "x")
    under_test.expire_lease("k")

    assert not store.erase(past, ["one", "two"])
    assert set(store.records("k")) == {"one", "two", "three"}
    assert store.erase(acquire(store), ["one", "two", "never"])
    assert set(store.records("k")) == {"three"}


def test_a_request_is_left_for_the_holder_by_anybody_for_a_while(store: Store) -> None:
    assert store.request("k") == ""

    store.ask("k", "step down", 60)
    store.ask("k", "stay", 60)

    assert store.request("k") == "stay"
    assert store.request("another") == ""


def test_keys_that_are_held_can_be_listed(store: Store) -> None:
    for key in ("leader:one", "leader:two", "leader:[odd]*", "other"):
        acquire(store, key)

    assert store.keys("leader:") == ["leader:[odd]*", "leader:one", "leader:two"]
    assert store.keys("leader:[o") == ["leader:[odd]*"]


def test_as_many_as_is_said_are_woken(under_test: UnderTest) -> None:
    """One that is woken may be dead: a leader that resigns wakes more."""
    store = under_test.store
    lease = acquire(store)
    woken = []

    def wait() -> None:
        while isinstance(store.look("k").held, Held):
            store.wait("k", 30)
        woken.append(1)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: under_test.waiting() == 3, "three who wait")
    store.settle(lease, wake=3)
    for thread in threads:
        thread.join(20)

    assert woken == [1, 1, 1]
