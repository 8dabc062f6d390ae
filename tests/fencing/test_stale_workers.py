"""Real workers: a child is stopped in its body until its lease has ended and another run has written, then woken."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery.result import AsyncResult
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until
from recipes import RECIPES, Recipe
from workers import IMPORTABLE

from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server

on_both_databases = pytest.mark.parametrize("recipe", ["Sqlite", "Postgres"], indirect=True)


@pytest.fixture(scope="module")
def site(server: LocalServer, databases: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("fencing")) as site:
        site.ready_workers("prefork", project="fencing_project", env={"PYTHONPATH": IMPORTABLE})
        yield site


def send(site: Site, task: str, n: str, recipe: Recipe, size: int, **more: Any) -> AsyncResult:
    return site.app.send_task(task, (n, type(recipe).__name__, size), more)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that is not let on for as long as the block lasts."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def outslept(site: Site, task: str, n: str, recipe: Recipe) -> tuple[Any, AsyncResult]:
    """A run is stopped before it writes 3; when its lease has ended, another one writes 5; then the first one goes on.

    Returns:
        The newer run's value, and the result of the stale one.
    """
    stale = send(site, task, n, recipe, 3, wait=True)
    child = site.wait_for_word(n, "begin")["pid"]

    with stopped(child):
        wait_until(lambda: not site.client.exists(site.lock_name(n)), "the lease of the stopped child has ended")
        newer = send(site, task, n, recipe, 5).get(timeout=PATIENCE)
        wait_until(lambda: _has_written(recipe, n, 5), "the newer run's write")
        site.go(n)
    return newer, stale


def _has_written(recipe: Recipe, n: str, size: int) -> bool:
    try:
        return recipe.size(n)[0] == size and len(recipe.hosts(n)) == size
    except Exception:  # nothing is there yet, and each recipe says so in its own way
        return False


def refusal(result: AsyncResult) -> str:
    """The name of what a run failed with."""
    wait_until(result.ready, f"{result.id} has ended")
    assert result.state == "FAILURE"
    assert "StaleWrite" in result.traceback
    return str(result.result)


@pytest.mark.parametrize("recipe", RECIPES, indirect=True)
def test_a_child_that_was_stopped_past_its_lease_is_refused_and_the_newer_write_stands(
    site: Site, recipe: Recipe
) -> None:
    """1. Each holder's token is larger than every earlier one: a process that wakes too late is told apart by it."""
    n = fresh_n()

    _, stale = outslept(site, "write", n, recipe)

    assert "a newer holder has written" in refusal(stale)
    assert recipe.size(n)[0] == 5
    assert recipe.hosts(n) == [str(host) for host in range(5)]
    first, second = [signal["token"] for signal in site.signals("lease_acquired", key=f"n:{n}")]
    assert first < second == recipe.size(n)[1]


@on_both_databases
def test_the_children_of_a_run_that_was_overtaken_are_refused(site: Site, recipe: Recipe) -> None:
    """1. The token goes on to the tasks that a body sends, and to the next steps of a chain that it sends."""
    n = fresh_n()

    newer, stale = outslept(site, "send_children", n, recipe)
    for child in newer:
        site.app.AsyncResult(child).get(timeout=PATIENCE)

    for child in stale.get(timeout=PATIENCE):
        assert "a newer holder has written" in refusal(site.app.AsyncResult(child))
    newest = site.signals("lease_acquired", key=f"n:{n}")[-1]["token"]
    assert recipe.size(n) == recipe.size(f"{n}-second") == (5, newest)


def test_a_task_that_no_guarded_run_has_sent_has_no_lease_behind_it(site: Site) -> None:
    alone = site.app.send_task("store", (fresh_n(), "Sqlite", 1))

    wait_until(alone.ready, "the task has ended")

    assert "store is for tasks that hold a lease" in str(alone.result)
