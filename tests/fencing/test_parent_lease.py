"""The token goes on to what a guarded run sends, in real workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import chord, group, signature
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until
from workers import IMPORTABLE

from celery_coord import parent_lease
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", params=["prefork", "threads"])
def site(request: pytest.FixtureRequest, server: LocalServer, tmp_path_factory: Any) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("parents")) as site:
        site.ready_workers(request.param, project="fencing_project", env={"PYTHONPATH": IMPORTABLE})
        yield site


def task(site: Site, name: str, *args: Any) -> Any:
    """A task of the workers', which this process does not have; it takes no other's result."""
    return signature(name, args=args, immutable=True, app=site.app)


def behind(site: Site, n: str, who: str) -> list[Any] | None:
    """Key and token of the lease that a task found behind it, once it has looked."""
    found: list[Any] | None = json.loads(wait_until(lambda: site.client.hget(f"behind:{n}", who), f"{who} of {n}"))
    return found


def own(site: Site, n: str) -> list[Any]:
    """Key and token of the guarded run."""
    found = behind(site, n, "guard")
    assert found
    assert found[0] == f"n:{n}"
    return found


def test_a_child_has_the_lease_of_the_run_that_sent_it_behind_it(site: Site) -> None:
    n = fresh_n()

    task(site, "guard", n).delay().get(timeout=PATIENCE)

    assert behind(site, n, "child") == own(site, n)


def test_what_stands_after_a_guarded_run_has_its_lease_behind_it(site: Site) -> None:
    n = fresh_n()
    guard = task(site, "guard", n)
    guard.link(task(site, "see", n, "callback"))

    (guard | task(site, "see", n, "next step") | task(site, "relay", n)).delay().get(timeout=PATIENCE)

    for who in ("callback", "next step", "grandchild"):
        assert behind(site, n, who) == own(site, n)


def test_the_errback_of_a_guarded_run_has_its_lease_behind_it(site: Site) -> None:
    n = fresh_n()
    guard = task(site, "guard_that_fails", n)
    guard.link_error(signature("see_error", app=site.app))

    failed = guard.delay()
    failed.get(timeout=PATIENCE, propagate=False)

    [acquired] = site.signals("lease_acquired", key=f"n:{n}")
    assert behind(site, failed.id, "errback") == [f"n:{n}", acquired["token"]]


def test_the_body_of_a_chord_has_the_lease_of_its_last_part_behind_it(site: Site) -> None:
    n = fresh_n()

    chord([task(site, "guard", n)], task(site, "see", n, "chord body")).delay().get(timeout=PATIENCE)

    assert behind(site, n, "chord body") == own(site, n)


def test_a_task_with_a_lease_of_its_own_hands_that_one_on(site: Site) -> None:
    n = fresh_n()

    (task(site, "guard", n) | task(site, "guard_inside", n)).delay().get(timeout=PATIENCE)

    assert behind(site, n, "guarded child") == own(site, n)
    inner = behind(site, n, "child of the inner guard")
    assert inner
    assert inner[0] == f"inner:{n}"


def test_a_retry_keeps_the_lease_that_it_was_sent_under(site: Site) -> None:
    n = fresh_n()

    (task(site, "guard", n) | task(site, "see_twice", n)).delay().get(timeout=PATIENCE)

    assert behind(site, n, "try 0") == behind(site, n, "try 1") == own(site, n)


def test_what_a_task_sends_that_the_body_calls_as_a_function_is_a_child_too(site: Site) -> None:
    n = fresh_n()

    task(site, "guard_by_call", n).delay().get(timeout=PATIENCE)

    assert behind(site, n, "grandchild") == own(site, n)


def test_a_task_that_a_child_calls_as_a_function_has_the_lease_of_that_child_behind_it(site: Site) -> None:
    n = fresh_n()

    (task(site, "guard", n) | task(site, "relay_by_call", n)).delay().get(timeout=PATIENCE)

    assert behind(site, n, "called") == own(site, n)


def test_a_task_that_no_guarded_run_sent_has_no_lease_behind_it(site: Site) -> None:
    n = fresh_n()
    parts = [task(site, "see", n, "alone"), task(site, "guard_inside", n)]

    group(parts).delay().get(timeout=PATIENCE)

    assert behind(site, n, "alone") is None
    assert behind(site, n, "guarded child") is None


def test_outside_of_a_task_there_is_no_lease_behind() -> None:
    assert parent_lease() is None
