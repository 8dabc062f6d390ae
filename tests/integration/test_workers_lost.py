"""A lost lease reaches the body."""

from __future__ import annotations

import pytest
from celery.exceptions import TimeoutError as CeleryTimeout
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

from celery_coord import LeaseLost

pytestmark = pytest.mark.server

pools_that_can_be_interrupted = pytest.mark.parametrize("site", ["prefork", "solo"], indirect=True)


def take_away(site: Site, n: str) -> None:
    """The lease is somebody else's from now on; the holder learns it at its next renewal."""
    site.client.set(site.lock_name(n), "somebody/0/else", px=600_000)


@pools_that_can_be_interrupted
def test_a_body_can_be_interrupted_when_its_lease_is_lost(site: Site) -> None:
    """5. A holder that cannot renew knows it; with `on_lost="raise"` it is told so out of a call that blocks."""
    n = fresh_n()
    run = site.task("interruptible").delay(n)
    site.wait_for_word(n, "begin")

    take_away(site, n)
    site.wait_for_word(n, "interrupted")

    with pytest.raises(LeaseLost, match=f"n:{n} is lost"):
        run.get(timeout=PATIENCE)
    assert run.state == "FAILURE"
    assert site.client.get(site.lock_name(n)) == "somebody/0/else"


def test_a_body_in_a_thread_is_not_interrupted(threads: Site) -> None:
    """5. Where the pool cannot interrupt a body, it has to ask: its lease is lost all the same."""
    n = fresh_n()
    run = threads.task("tolerant").delay(n)
    threads.wait_for_word(n, "begin")

    take_away(threads, n)
    threads.wait_for_signal("lease_lost", key=f"n:{n}")
    with pytest.raises(CeleryTimeout):
        run.get(timeout=0.5)
    threads.go(n)

    assert run.get(timeout=PATIENCE)["lost"] is True
    assert threads.words(n) == ["begin"]


@pools_that_can_be_interrupted
def test_a_good_result_under_a_lost_lease_stands_and_is_told_and_earns_no_quiet_period(site: Site) -> None:
    """12. The cooldown begins only if the lease was still ours; what the body returned is its result."""
    n = fresh_n()
    run = site.task("tolerant").delay(n)
    site.wait_for_word(n, "begin")

    take_away(site, n)
    site.wait_for_word(n, "interrupted")
    site.go(n)

    assert run.get(timeout=PATIENCE)["lost"] is True
    assert run.state == "SUCCESS"
    outlived = site.wait_for_signal("lease_outlived", key=f"n:{n}")
    assert outlived["owner"] == site.signals("lease_acquired", key=f"n:{n}")[0]["owner"]
    assert outlived["token"] == site.signals("lease_acquired", key=f"n:{n}")[0]["token"]
    wait_until(lambda: "ended well under a lost lease; its result stands" in site.output(), "a log line")
    assert not site.client.exists(site.cooldown_name(n))


def test_the_next_body_in_a_process_that_was_interrupted_is_left_alone(solo: Site) -> None:
    """6. An interruption is for the run that lost its lease."""
    n, next_one = fresh_n(), fresh_n()
    run = solo.task("tolerant").delay(n)
    solo.wait_for_word(n, "begin")
    take_away(solo, n)
    solo.wait_for_word(n, "interrupted")
    solo.go(n, next_one)
    run.get(timeout=PATIENCE)

    for _ in range(2):  # one for each of the two workers, or both for one of them
        assert solo.task("tolerant").delay(next_one).get(timeout=PATIENCE)["lost"] is False
    assert "interrupted" not in solo.words(next_one)
