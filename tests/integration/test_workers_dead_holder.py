"""No run is dropped in favour of a holder that has stopped renewing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

pytestmark = pytest.mark.server


def seem_dead(site: Site, n: str, left: float) -> None:
    """The key is held by a run of which nothing is left but so many seconds of its lease of 30."""
    with site.client.pipeline() as pipeline:
        pipeline.set(site.lock_name(n), "dead/0/nonce", px=int(left * 1000))
        pipeline.set(site.lease_name(n), "1000\n30000\ndead/0/nonce\nstep at nowhere")
        pipeline.execute()


@pytest.mark.parametrize("site", ["prefork", "threads", "solo"], indirect=True)
def test_an_arrival_waits_for_the_end_of_a_lease_whose_holder_has_missed_a_renewal(site: Site) -> None:
    """8. No run is dropped in favour of a holder that has stopped renewing: it waits, then tries again."""
    n = fresh_n()
    seem_dead(site, n, left=6)

    run = site.task("step").delay(n)
    waits = site.wait_for_signal("task_deferred", task_id=run.id)
    assert run.state == "PENDING"

    assert waits["why"] == "unrenewed"
    assert 0 < waits["countdown"] < 7
    assert run.get(timeout=PATIENCE)
    assert site.words(n) == ["begin", "end"]
    assert not site.signals("task_dropped", task_id=run.id)


def test_an_arrival_that_waited_is_dropped_in_favour_of_a_holder_that_lives(prefork: Site) -> None:
    """8. It tries again, no more: another may have been faster."""
    n = fresh_n()
    seem_dead(prefork, n, left=6)
    run = prefork.task("step").delay(n)
    prefork.wait_for_signal("task_deferred", task_id=run.id)

    prefork.client.delete(prefork.lock_name(n))
    with prefork.holding(n):
        wait_until(lambda: run.state == "REVOKED", "it is dropped")

    assert prefork.words(n) == ["begin", "end"]


def test_a_holder_that_renews_is_obeyed(prefork: Site) -> None:
    """8. ... and dropped at once in favour of one that renews, however long that has been at work."""
    n = fresh_n()

    with prefork.holding(n):
        lock = prefork.lock_name(n)
        owner = prefork.client.get(lock)
        wait_until(lambda: prefork.client.pttl(lock) < 21_000, "a renewal is due")
        wait_until(lambda: prefork.client.pttl(lock) > 25_000, "it was renewed")
        run = prefork.task("step").delay(n)
        wait_until(lambda: run.state == "REVOKED", "it is dropped")
        assert prefork.client.get(lock) == owner

    assert not prefork.signals("task_deferred", task_id=run.id)


def test_an_arrival_waits_for_the_lease_of_a_worker_that_was_killed(folder: Path) -> None:
    """8. A worker is killed, with its parent: who arrives after the next renewal was due is not dropped, and runs."""
    n = fresh_n()
    with Site(folder, coord_lease_ttl=4) as site:
        [doomed] = site.ready_workers("prefork")
        site.task("hold").delay(n)
        site.wait_for_word(n, "begin")
        os.killpg(doomed.pid, signal.SIGKILL)
        site.ready_workers("prefork")
        lock = site.lock_name(n)
        wait_until(lambda: site.client.pttl(lock) < 4000 * 7 / 12, "a renewal is overdue")

        run = site.task("step").delay(n)

        assert run.get(timeout=PATIENCE)
        assert site.words(n) == ["begin", "begin", "end"]
        assert not site.signals("task_dropped")
