"""A rolling upgrade: a worker of this version, and one of a later one. Nothing is lost, nothing runs beside another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import local_processes
import pytest
from celery import states
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server
LATER = "later"


@pytest.fixture(scope="module")
def upgraded(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with a worker of this version, and one of the later version on a queue of its own."""
    # A store that takes its time is not away: a run that it lets wait is not to be let through.
    conf = {"coord_on_store_error": "run", "coord_store_retry_pause": 2, "coord_store_timeout": 10}
    with Site(tmp_path_factory.mktemp("upgraded"), **conf) as site:
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(local_processes.__file__).parent)])
        # The rights of the user who coordinates are for the keys of this layout.
        later = site.worker("threads", "-Q", LATER, project="next_project", env={"PYTHONPATH": path}, coord_url=None)
        site.workers = [site.worker("threads"), later]
        for worker in site.workers:
            worker.wait_for(" ready.")
        yield site


def test_who_meets_a_run_of_the_later_version_waits_for_its_end_and_says_what_to_do(upgraded: Site) -> None:
    n = fresh_n()
    later = upgraded.task("hold").apply_async((n,), queue=LATER)
    upgraded.wait_for_word(n, "begin")

    ours = upgraded.task("step").delay(n)
    upgraded.wait_for_signal("task_deferred", task_id=ours.id, why="layout")
    assert upgraded.words(n) == ["begin"]
    upgraded.go(n)

    assert later.get(timeout=PATIENCE)["token"] < ours.get(timeout=PATIENCE)["token"]
    assert upgraded.words(n) == ["begin", "end"] * 2
    assert "upgrade this process" in upgraded.workers[0].output


def test_the_later_version_is_refused_by_a_run_of_the_earlier_one(upgraded: Site) -> None:
    n = fresh_n()

    with upgraded.holding(n):
        refused = upgraded.task("step").apply_async((n,), queue=LATER)
        wait_until(lambda: refused.state == states.REVOKED, "the other version is refused")

    assert upgraded.words(n) == ["begin", "end"]


def test_in_a_flood_of_both_no_two_run_at_once_and_every_run_ends(upgraded: Site) -> None:
    n = fresh_n()
    step = upgraded.task("step")

    runs = [step.apply_async((n,), queue=LATER if number % 2 else None) for number in range(60)]
    for run in runs:
        wait_until(lambda run=run: run.state in states.READY_STATES, "every run ends")  # type: ignore[misc]

    words = upgraded.words(n)
    assert words == ["begin", "end"] * (len(words) // 2)
    assert len(words) == 2 * sum(run.state == states.SUCCESS for run in runs) >= 2
    assert not upgraded.signals("task_unguarded")
