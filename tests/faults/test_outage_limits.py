"""9. A time limit of the task's that is shorter than it takes to find out that the store does not answer."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.exceptions import TimeLimitExceeded
from coord_site import Site, fresh_n
from local_processes import PATIENCE, CeleryProcess

from celery_coord.testing import LocalServer

#: The limit of one call, in seconds: long enough for a child to have begun to ask by then.
LIMIT = 4
#: `coord_store_timeout`: far longer.
STORE_TIMEOUT = 20.0
#: The worker's own: longer than any body takes here, and shorter than three answers.
LIMIT_OF_ALL = 50
#: How the warning begins.
SENTENCE = "asking a store that does not answer"


class Stalled(Site):
    """A site whose store is apart from its broker, and stands still when it is told to."""

    def __init__(self, folder: Path, store: LocalServer) -> None:
        super().__init__(folder, coord_url=store.url, coord_store_timeout=STORE_TIMEOUT, coord_store_retry_pause=2)
        assert store.pid is not None
        self.store_pid = store.pid


@pytest.fixture(scope="module")
def site(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stalled]:
    with LocalServer() as store, Stalled(tmp_path_factory.mktemp("limits"), store) as site:
        site.ready_workers("prefork", task_time_limit=LIMIT_OF_ALL)
        site.task("step").delay(fresh_n()).get(timeout=PATIENCE)  # all is loaded by now
        yield site


@pytest.fixture
def worker(site: Stalled) -> CeleryProcess:
    return site.workers[0]


@pytest.fixture
def stalled(site: Stalled) -> Iterator[Stalled]:
    os.kill(site.store_pid, signal.SIGSTOP)
    yield site
    os.kill(site.store_pid, signal.SIGCONT)


def test_a_soft_limit_that_passes_while_the_store_is_asked_puts_the_run_off(stalled: Stalled) -> None:
    """It is the body's limit, and the body has not begun."""
    n = fresh_n()
    run = stalled.task("step").apply_async((n,), soft_time_limit=LIMIT)

    assert stalled.wait_for_signal("task_deferred", task_id=run.id)["why"] == "store"
    assert (run.state, stalled.words(n)) == ("PENDING", [])
    errors = {told["error"] for told in stalled.signals("store_failed", doing=f"asking for n:{n}")}
    assert errors == {"the task's soft time limit passed before it answered"}
    os.kill(stalled.store_pid, signal.SIGCONT)

    assert run.get(timeout=PATIENCE)["token"] > 0
    assert stalled.words(n) == ["begin", "end"]


def test_a_hard_limit_that_passes_while_the_store_is_asked_ends_the_run(stalled: Stalled) -> None:
    """Nobody can put off what was killed; the worker says so before it happens."""
    n = fresh_n()
    run = stalled.task("step").apply_async((n,), time_limit=LIMIT)

    with pytest.raises(TimeLimitExceeded):
        run.get(timeout=PATIENCE)

    assert stalled.words(n) == []


def test_a_worker_says_as_it_starts_which_limits_are_that_short(worker: CeleryProcess) -> None:
    [line] = [line for line in worker.output.splitlines() if SENTENCE in line]

    assert f"takes up to {3 * STORE_TIMEOUT:g} s" in line
    assert re.search(r"the time limit of limited \(2 s\), \w+ \(4 s\), \w+ \(50 s\) is shorter", line)
    assert "set coord_store_timeout = 0.5" in line


@pytest.mark.parametrize(
    ("pool", "given", "is_told"),
    [
        ("prefork", ("--soft-time-limit=1",), False),  # which comes first, and puts the run off
        ("gevent", ("--soft-time-limit=1",), True),  # where there are none
        ("eventlet", (), False),
        ("threads", (), False),
    ],
)
def test_a_worker_speaks_of_those_limits_alone_that_its_pool_knows(
    tmp_path: Path, server: LocalServer, pool: str, given: tuple[str, ...], *, is_told: bool
) -> None:
    with Site(tmp_path) as site:
        worker = site.worker(pool, *given)
        worker.wait_for(" ready.")

        assert (SENTENCE in worker.output) is is_told
