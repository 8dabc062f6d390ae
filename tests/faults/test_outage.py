"""9. The store is away while the broker is not: real workers, on a store of its own, and many runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from celery.result import AsyncResult
from coord_site import fresh_n
from local_processes import PATIENCE, CeleryProcess, wait_until
from outage_site import OutageSite

from celery_coord.testing import LocalServer

#: How many runs meet no store.
RUNS = 120
#: `coord_store_retry_pause`, and what a first pause lasts at most.
PAUSE, FIRST = 3.0, 2.0
#: `coord_max_connections`; there are four times as many threads.
CONNECTIONS = 4
#: By how much each answer is late when the store is back, so that more runs ask at a time than may have a connection.
SLOW = 0.03
#: How long an outage lasts beside the time in which all runs have met it.
LASTS = 1.0


@dataclass
class Outage:
    """An outage, and what was seen of it."""

    site: OutageSite
    worker: CeleryProcess
    runs: dict[str, AsyncResult]
    away: list[dict[str, Any]]
    bodies_meanwhile: list[str]
    lines: list[str]
    back_at: float

    def begun_at(self) -> list[float]:
        """When each body began, in seconds since the store was back."""
        acquired = self.site.signals("lease_acquired")
        return sorted(told["at"] - self.back_at for told in acquired if told["key"].removeprefix("n:") in self.runs)

    def deferrals(self) -> list[list[float]]:
        """The pauses of each run, in order."""
        told = self.site.signals("task_deferred", why="store")
        return [[said["countdown"] for said in told if said["task_id"] == run.id] for run in self.runs.values()]


@pytest.fixture(scope="module")
def outage(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outage]:
    """One outage, lived through by many runs; each test looks at one side of it."""
    conf = {"coord_store_retry_pause": PAUSE, "coord_max_connections": CONNECTIONS}
    with OutageSite(tmp_path_factory.mktemp("outage"), **conf) as site:
        worker = site.start_worker("-c", str(4 * CONNECTIONS))
        worker.wait_for(" ready.")
        yield live_through(site, worker)


def live_through(site: OutageSite, worker: CeleryProcess) -> Outage:
    proxy = site.scene.proxy
    site.send("patient", fresh_n()).get(timeout=PATIENCE)  # connections are open when the store goes
    proxy.die()
    runs = {n: site.send("patient", n) for n in (fresh_n() for _ in range(RUNS))}

    def have_met_it() -> bool:
        return {told["task_id"] for told in site.signals("task_deferred")} >= {run.id for run in runs.values()}

    wait_until(have_met_it, "all runs have met the outage")
    met_at = time.monotonic()
    wait_until(lambda: time.monotonic() > met_at + LASTS, "the outage lasts")
    meanwhile = [n for n in runs if site.words(n)]
    away, lines = site.signals("store_failed"), worker.output.splitlines()
    proxy.most = 0
    back_at = time.time()
    proxy.heal()
    proxy.delay(SLOW)
    wait_until(lambda: all(run.ready() for run in runs.values()), "all runs have ended", timeout=2 * PATIENCE)
    return Outage(site, worker, runs, away, meanwhile, lines, back_at)


def test_every_run_ends_when_the_store_is_back_and_none_ran_without_a_lease(outage: Outage) -> None:
    """9. Neither dropped nor let through unguarded: each body has run once, under a token."""
    assert outage.bodies_meanwhile == []
    assert {run.state for run in outage.runs.values()} == {"SUCCESS"}
    assert all(run.result["token"] for run in outage.runs.values())
    assert all(outage.site.words(n) == ["begin", "end"] for n in outage.runs)
    assert not outage.site.signals("task_dropped")
    assert not outage.site.signals("task_unguarded")


def test_pauses_grow_to_a_bound_and_are_jittered(outage: Outage) -> None:
    """`coord_store_retry_pause` is the longest; each lies between a half and the whole of what it could be."""
    deferrals = outage.deferrals()

    for pauses in deferrals:
        longest = [min(PAUSE, FIRST * 2**number) for number in range(len(pauses))]
        assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    first = [pauses[0] for pauses in deferrals]
    assert statistics.stdev(first) > FIRST / 16  # an even spread has FIRST / 7


def test_runs_come_back_spread_over_time(outage: Outage) -> None:
    """No thundering herd: of what waited for the store no great part begins in one instant."""
    begun_at = outage.begun_at()

    assert len(begun_at) == RUNS
    most = max(sum(begun <= other < begun + 0.1 for other in begun_at) for begun in begun_at)
    assert most < RUNS / 2
    assert begun_at[-1] - begun_at[0] > 0.4


def test_a_process_comes_back_with_few_connections(outage: Outage) -> None:
    """However many threads ask: `coord_max_connections`, and one of the keeper."""
    assert 0 < outage.site.scene.proxy.most <= CONNECTIONS + 1


def test_the_log_is_not_flooded_and_signals_tell_of_each(outage: Outage) -> None:
    """One line in ten seconds for all that is the same trouble; `store_failed` and `task_deferred` for each run."""
    said = [line for line in outage.lines if "the store failed" in line or "not admitted to" in line]

    assert len(outage.away) >= RUNS
    assert 0 < len([line for line in said if "the store failed" in line]) < RUNS / 10
    assert 0 < len([line for line in said if "not admitted to" in line]) < RUNS / 10


def test_a_line_and_a_signal_say_that_the_store_answers_again(outage: Outage) -> None:
    told = outage.site.wait_for_signal("store_recovered")

    assert told["seconds"] >= LASTS
    assert told["failures"] >= RUNS
    wait_until(lambda: "the store answers again" in outage.worker.output, "a line in the log")
