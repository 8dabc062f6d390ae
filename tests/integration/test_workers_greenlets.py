"""A worker of greenlets on a Redis: kombu loses what it has taken where its connections run out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import pytest
from coord_site import Site
from local_processes import wait_until

from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server

GREENLETS = 40
#: What a worker with so many is told to set.
ENOUGH = GREENLETS + 5
SENTENCE = "greenlets acknowledge at the same time"
#: Whether they do: before Celery 5.7 one does it for all of them.
AT_ONCE = celery.VERSION >= (5, 7)


def options(most: int | None) -> dict[str, Any]:
    return {"broker_transport_options": {"max_connections": most}}


def lines_of(site: Site, pool: str, *given: str) -> list[str]:
    """What a worker says of it as it starts."""
    worker = site.worker(pool, *given)
    worker.wait_for(" ready.")
    return [line for line in worker.output.splitlines() if SENTENCE in line]


@pytest.mark.parametrize(
    ("pool", "given", "conf", "has"),
    [
        ("gevent", ("-c", str(GREENLETS)), {}, 10),
        ("eventlet", ("-c", str(GREENLETS)), options(ENOUGH - 1), ENOUGH - 1),
        ("gevent", (f"--autoscale={GREENLETS},2",), {}, 10),
    ],
    ids=["by default", "too few", "when it has grown"],
)
def test_a_worker_whose_greenlets_can_run_out_of_connections_says_so(
    folder: Path, pool: str, given: tuple[str, ...], conf: dict[str, Any], has: int
) -> None:
    """Nothing is lost: where the broker's transport may lose messages the worker says what to set, as it starts."""
    with Site(folder, **conf) as site:
        lines = lines_of(site, pool, *given)

        assert len(lines) == AT_ONCE
        for line in lines:
            assert f"up to {GREENLETS} greenlets" in line
            assert f"kombu has {has} connections" in line
            assert f"broker_transport_options = {{'max_connections': {ENOUGH}}}" in line


@pytest.mark.parametrize(
    ("pool", "given", "conf"),
    [
        ("gevent", (), options(ENOUGH)),
        ("eventlet", (), options(None)),
        ("gevent", ("--autoscale=4,2",), {}),
        ("threads", (), {}),
        ("gevent", (), {"broker_url": "memory://"}),
    ],
    ids=["enough", "no limit", "it never has so many", "threads", "another broker"],
)
def test_a_worker_that_cannot_run_out_of_connections_is_not_warned(
    folder: Path, server: LocalServer, pool: str, given: tuple[str, ...], conf: dict[str, Any]
) -> None:
    with Site(folder, **conf) as site:
        assert lines_of(site, pool, "-c", str(GREENLETS), *given) == []


@pytest.mark.parametrize("pool", ["gevent", "eventlet"])
def test_with_as_many_connections_as_it_is_told_to_set_nothing_is_lost(
    folder: Path, server: LocalServer, pool: str
) -> None:
    """Ten times as many runs as there are greenlets are due at the same instant."""
    with Site(folder, **options(ENOUGH)) as site:
        site.worker(pool, "-c", str(GREENLETS)).wait_for(" ready.")
        for _ in range(2):
            instant = datetime.now(UTC) + timedelta(seconds=3)
            runs = [site.task("same").apply_async((n,), eta=instant) for n in range(10 * GREENLETS)]

            wait_until(lambda runs=runs: all(run.ready() for run in runs), f"{len(runs)} runs end", timeout=120)
            assert {run.state for run in runs} == {"SUCCESS"}
