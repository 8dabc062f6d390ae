"""A retry: with the key free in the gap, or kept over it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from coord_site import Site, fresh_n
from local_processes import LONGEST_END, PATIENCE, wait_until

pytestmark = pytest.mark.server


@pytest.mark.parametrize("site", ["prefork", "threads"], indirect=True)
def test_the_key_is_free_between_a_run_and_its_retry(site: Site) -> None:
    """4. However a task ends, its key is free; a retry asks for it anew."""
    n = fresh_n()

    waiting = site.task("retrying").delay(n, countdown=3600)
    wait_until(lambda: waiting.state == "RETRY", "it waits for its retry")

    assert not site.client.exists(site.lock_name(n))
    assert site.task("step").delay(n).get(timeout=PATIENCE)
    assert site.words(n) == ["try 0", "begin", "end"]


@pytest.mark.parametrize("site", ["prefork", "threads"], indirect=True)
def test_a_key_can_be_kept_over_the_gap(site: Site) -> None:
    """7. A retry takes over from the run that published it; with `hold_on_retry` nobody gets in between."""
    n = fresh_n()

    waiting = site.task("tenacious").delay(n, countdown=3600)
    wait_until(lambda: waiting.state == "RETRY", "it waits for its retry")
    stranger = site.task("step").delay(n)
    wait_until(lambda: stranger.state == "REVOKED", "a stranger is dropped")

    left = site.client.pttl(site.lock_name(n)) / 1000
    assert 3600 < left <= 3630
    held = site.task("tenacious").look(n).held
    assert held.holder.startswith(f"{waiting.id}/0/")
    assert "tenacious" in held.label
    assert site.signals("lease_kept", key=f"n:{n}")


@pytest.mark.parametrize("site", ["prefork", "threads"], indirect=True)
def test_the_retry_takes_over_the_key_that_was_kept_for_it(site: Site) -> None:
    """7. A retry takes over from the run that published it; a success at last starts the quiet period."""
    n = fresh_n()

    run = site.task("tenacious").delay(n)
    site.wait_for_word(n, "begin")
    assert site.client.pttl(site.lock_name(n)) <= 30_000
    site.go(n)

    assert run.get(timeout=PATIENCE)
    assert site.words(n) == ["try 0", "try 1", "begin", "end"]
    assert not site.client.exists(site.lock_name(n))
    assert 10_000 < site.client.pttl(site.cooldown_name(n)) <= 60_000
    assert not site.signals("lease_lost", key=f"n:{n}")


def test_a_last_failure_starts_the_quiet_period_of_a_failure(prefork: Site) -> None:
    """12. A retry leaves no quiet period; the last failure leaves its own."""
    n = fresh_n()

    run = prefork.task("tenacious").delay(n, fail=True)
    prefork.wait_for_word(n, "begin")
    assert not prefork.client.exists(prefork.cooldown_name(n))
    # Celery sends the retry before it stores this state, which would write over that of a retry that was faster.
    wait_until(lambda: run.state == "RETRY", "the first try has told of its end")
    prefork.go(n)
    wait_until(lambda: run.state == "FAILURE", "it has failed")

    assert 0 < prefork.client.pttl(prefork.cooldown_name(n)) <= 10_000
    assert not prefork.client.exists(prefork.lock_name(n))


def test_a_key_is_kept_over_a_restart_of_the_worker(folder: Path) -> None:
    """7. A retry takes over from the run that published it, also in another worker, when the first is gone."""
    n = fresh_n()
    with Site(folder, coord_lease_ttl=2 * LONGEST_END) as site:  # it is kept for longer than the first takes to end
        [first] = site.ready_workers("prefork")
        run = site.task("tenacious").delay(n, countdown=6)
        wait_until(lambda: run.state == "RETRY", "it waits for its retry")
        first.signal(signal.SIGTERM)  # it hands back what it has not begun
        first.wait()
        assert site.client.exists(site.lock_name(n))
        site.ready_workers("prefork")
        site.wait_for_word(n, "begin")
        site.go(n)

        assert run.get(timeout=PATIENCE)
        assert site.words(n) == ["try 0", "try 1", "begin", "end"]


def test_a_message_whose_run_was_retried_is_spent(prefork: Site) -> None:
    """7. If the earlier delivery handed over to a retry, its message, delivered again, ends as a duplicate."""
    n = fresh_n()
    retrying = prefork.task("retrying")
    waiting = retrying.delay(n, countdown=3600)
    wait_until(lambda: waiting.state == "RETRY", "it waits for its retry")

    retrying.apply_async((n,), {"countdown": 3600}, task_id=waiting.id)

    prefork.wait_for_signal("task_duplicate", task_id=waiting.id)
    assert prefork.words(n) == ["try 0"]
    assert waiting.state == "RETRY"


def test_what_a_body_sends_carries_its_token(prefork: Site) -> None:
    """1. Each holder's token is larger than every earlier one: what it sends can be told from what a stale one sent."""
    n = fresh_n()

    parental = prefork.task("parental").apply_async((n,), link=prefork.task("child").si(n))
    token = parental.get(timeout=PATIENCE)["token"]

    # The child, the child's child, and the callback, which is sent when the lease has ended.
    wait_until(lambda: prefork.client.llen(f"children:{n}") == 3, "all have run")
    assert [json.loads(told) for told in prefork.client.lrange(f"children:{n}", 0, -1)] == [[f"n:{n}", token]] * 3


def test_a_retry_was_sent_under_the_lease_of_its_parent_and_not_its_own(prefork: Site) -> None:
    """1. A retry of a run is not its own child."""
    n = fresh_n()

    token = prefork.task("parental_of_a_retry").delay(n).get(timeout=PATIENCE)["token"]

    wait_until(lambda: prefork.client.llen(f"children:{n}") == 2, "both tries have run")
    assert [json.loads(told) for told in prefork.client.lrange(f"children:{n}", 0, -1)] == [[f"other:{n}", token]] * 2


def test_a_task_that_nobody_guarded_sent_has_no_parent(prefork: Site) -> None:
    n = fresh_n()

    prefork.task("child").delay(n)

    wait_until(lambda: prefork.client.lrange(f"children:{n}", 0, -1) == ["null"], "it has run")
