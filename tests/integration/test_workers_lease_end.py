"""The lease ends with the body, and before anything that the body's end sets off."""

from __future__ import annotations

import pytest
from celery import chain
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

pytestmark = pytest.mark.server

pools_that_run_the_next_at_once = pytest.mark.parametrize("site", ["prefork", "threads"], indirect=True)

#: So often each race is run: with the lease released after the result, most of these lost it.
TIMES = 25


@pools_that_run_the_next_at_once
def test_the_next_step_of_a_chain_on_the_same_key_runs(site: Site) -> None:
    """3. The lease ends with the body, before callbacks are sent: `chain(t.si(1), t.si(1))` runs twice."""
    n, step = fresh_n(), site.task("step")

    for _ in range(TIMES):
        chain(step.si(n), step.si(n)).delay().get(timeout=PATIENCE)

    assert site.words(n) == ["begin", "end"] * 2 * TIMES
    assert not site.signals("task_dropped", key=f"n:{n}")


@pools_that_run_the_next_at_once
def test_a_callback_on_the_same_key_runs(site: Site) -> None:
    """3. The lease ends before callbacks are sent: a `link` to the task itself runs."""
    n, step = fresh_n(), site.task("step")

    for done in range(TIMES):
        step.apply_async((n,), link=step.si(n))
        site.wait_for_word(n, "end", times=2 * (done + 1))
        wait_until(lambda: not site.client.exists(site.lock_name(n)), "the callback's lease has ended")

    assert site.words(n) == ["begin", "end"] * 2 * TIMES


@pools_that_run_the_next_at_once
def test_the_key_is_free_when_the_result_is_visible(site: Site) -> None:
    """3. The lease ends with the body, before the result is visible, whether it ended well or not."""
    n = fresh_n()

    for fail in [False, True] * 5:
        site.task("touchy").delay(n, fail=fail).get(timeout=PATIENCE, propagate=False)
        assert not site.client.exists(site.lock_name(n))
        site.task("touchy").clear_cooldown(n)


@pools_that_run_the_next_at_once
def test_a_retry_of_its_own_takes_over_and_runs(site: Site) -> None:
    """7. A retry of a run takes over from the run that published it."""
    for _ in range(TIMES):
        n = fresh_n()
        site.task("retrying").delay(n).get(timeout=PATIENCE)
        assert site.words(n) == ["try 0", "try 1", "begin", "end"]


@pools_that_run_the_next_at_once
def test_a_retry_that_the_task_asks_for_by_option_takes_over_and_runs(site: Site) -> None:
    """7. A retry of a run takes over from the run that published it; a retried failure leaves no quiet period."""
    for _ in range(TIMES):
        n = fresh_n()
        site.task("autoretrying").delay(n).get(timeout=PATIENCE)
        assert site.words(n) == ["try 0", "begin", "try 1", "begin", "end"]


@pools_that_run_the_next_at_once
def test_a_replacement_on_the_same_key_takes_over_and_runs(site: Site) -> None:
    """7. A replacement of a run takes over from the run that published it."""
    for _ in range(TIMES):
        n = fresh_n()
        site.task("replacing").delay(n).get(timeout=PATIENCE)
        assert site.words(n) == ["begin", "end"]


@pools_that_run_the_next_at_once
def test_a_retry_and_a_replacement_lose_nothing_and_say_so(site: Site) -> None:
    """11. Nobody is told of a loss or a drop where a run handed its key to its own next generation."""
    n = fresh_n()

    site.task("replacing").delay(n).get(timeout=PATIENCE)
    site.task("retrying").delay(n).get(timeout=PATIENCE)
    wait_until(lambda: len(site.signals("lease_released", key=f"n:{n}")) == 2, "both have ended")

    assert not site.signals("task_dropped", key=f"n:{n}")
    assert not site.signals("lease_lost", key=f"n:{n}")


@pools_that_run_the_next_at_once
def test_the_end_of_a_run_that_lost_its_key_leaves_the_next_holder_alone(site: Site) -> None:
    """6. Only the owner's own lease is ever released; 12. the cooldown begins only if the lease was still ours."""
    n = fresh_n()

    with site.holding(n, "costly", wait=True) as robbed:
        [lease] = site.signals("lease_acquired", key=f"n:{n}")
        site.client.set(site.lock_name(n), "somebody/0/else", px=600_000)

    assert robbed.state == "SUCCESS"
    assert site.client.get(site.lock_name(n)) == "somebody/0/else"
    assert site.client.pttl(site.lock_name(n)) > 30_000
    assert not site.client.exists(site.cooldown_name(n))
    assert site.wait_for_signal("lease_lost", key=f"n:{n}", owner=lease["owner"])["why"] == "gone"
    wait_until(lambda: f"lease of {lease['owner']} lost (gone)" in site.output(), "a log line")


@pools_that_run_the_next_at_once
def test_a_running_body_learns_that_its_lease_was_taken(site: Site) -> None:
    """5. A holder that cannot renew knows it in time; 6. only the owner's own lease is ever renewed."""
    n = fresh_n()
    watching = site.task("watchful").delay(n)
    site.wait_for_word(n, "begin")

    site.client.set(site.lock_name(n), "somebody/0/else", px=600_000)
    site.wait_for_word(n, "lost")
    site.wait_for_signal("lease_lost", key=f"n:{n}", why="gone")
    site.go(n)

    assert watching.get(timeout=PATIENCE)["lost"] is True
    assert site.client.get(site.lock_name(n)) == "somebody/0/else"
    assert site.client.pttl(site.lock_name(n)) > 30_000
