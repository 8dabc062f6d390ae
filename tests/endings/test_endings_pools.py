"""What every pool has in common, beside the ways to end: leases are renewed, and nothing is said where all is well."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from endings_project import SHORT
from endings_site import LONG_WAIT, EndingsSite, Worker
from endings_table import GREEN, POOLS, Kind
from local_processes import wait_until

pytestmark = pytest.mark.server

in_each_pool = pytest.mark.parametrize("worker", [pool for pool in POOLS if pool != "eager"], indirect=True)


@pytest.fixture
def worker(endings: EndingsSite, request: pytest.FixtureRequest) -> Iterator[Worker]:
    if request.param in GREEN.split() and not os.environ.get("CI"):
        pytest.importorskip(request.param)
    taken = endings.take(Kind(request.param, "redis"))
    yield taken
    taken.end()


@in_each_pool
def test_the_lease_is_renewed_while_the_body_runs(worker: Worker, endings: EndingsSite) -> None:
    """5. The lease is renewed while the body runs, whatever the pool runs it in."""
    run = endings.send(worker, "brief_early", "succeed")
    endings.wait_for_word(run.n, "begin")
    lock = endings.lock_name(run.n)

    for _ in range(2):  # the keeper is there not only for the first time
        endings.client.pexpire(lock, 60_000)  # longer than a renewal gives, so that it does not end before one
        wait_until(lambda: 0 < endings.client.pttl(lock) <= SHORT * 1000, "it is renewed", timeout=LONG_WAIT)
    endings.go(run.n)

    assert run.result.get(timeout=LONG_WAIT) == "done"
    assert not endings.signals("lease_lost", key=f"n:{run.n}")


@in_each_pool
def test_nothing_of_ours_raises_in_a_worker_where_all_goes_well(worker: Worker, endings: EndingsSite) -> None:
    """4. What watches over the children keeps still where there are none."""
    run = endings.send(worker, "early", "succeed")
    endings.go(run.n)
    assert run.result.get(timeout=LONG_WAIT) == "done"
    worker.wait_for_silence()

    assert "celery_coord/" not in worker.process.output
    assert "Traceback" not in worker.process.output
