"""A component runs on one worker of many: real workers, in every pool, under real signals."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coord_site import Site, fresh_n
from local_processes import CeleryProcess, soonest, wait_until

from celery_coord.operating import leaders, step_down
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server

TTL = 5.0
#: So long after a resignation another leads, in seconds.
AT_ONCE = 0.2


@pytest.fixture
def site(folder: Path) -> Iterator[Site]:
    with Site(folder) as site:
        yield site


def workers(site: Site, pool: str, count: int = 2) -> list[CeleryProcess]:
    return site.ready_workers(pool, count=count, project="component_project")


def told(site: Site, what: str = "round") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in site.client.lrange("component", 0, -1)]
    return [line for line in lines if line["what"] == what]


def wait_for_rounds(site: Site, more: int = 3, **fields: Any) -> list[dict[str, Any]]:
    """Until there are so many more rounds with these fields; they."""

    def rounds() -> list[dict[str, Any]]:
        return [line for line in told(site) if fields.items() <= line.items()]

    so_far = len(rounds())
    wait_until(lambda: len(rounds()) >= so_far + more, f"{more} more rounds with {fields}")
    return rounds()[so_far:]


def leading(site: Site, all_workers: list[CeleryProcess]) -> tuple[CeleryProcess, CeleryProcess]:
    """The worker that runs the component, and another one."""
    pid = wait_for_rounds(site)[-1]["pid"]
    [leader] = [worker for worker in all_workers if worker.pid == pid]
    return leader, next(worker for worker in all_workers if worker.pid != pid)


def assert_terms_do_not_mix(site: Site) -> None:
    """Terms only grow, and one process acts in each."""
    rounds = told(site)
    terms = [line["term"] for line in rounds]
    assert terms == sorted(terms)
    assert len({(line["term"], line["pid"]) for line in rounds}) == len(set(terms))


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent", "eventlet"])
def test_a_component_runs_on_one_worker_of_many_and_moves_when_that_is_killed(
    folder: Path, server: LocalServer, pool: str
) -> None:
    """A periodic component that runs on one Celery worker of many, in its main process, in every pool."""

    def kill() -> float:
        with Site(folder / fresh_n()) as site:
            leader, other = leading(site, workers(site, pool))

            leader.signal(signal.SIGKILL)
            wait_for_rounds(site, pid=other.pid)

            assert {line["pid"] for line in told(site)} == {leader.pid, other.pid}
            assert_terms_do_not_mix(site)
            ended, began = told(site)[-1], told(site, "elected")[-1]
            assert began["pid"] == other.pid
            assert ended["term"] == began["term"]
            last = max(line["at"] for line in told(site) if line["pid"] == leader.pid)
            return float(began["at"] - last)

    most = TTL + 1 + 0.1  # from its last round, and not from its end
    assert soonest(kill, most) <= most


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_component_ends_with_its_worker_and_another_begins_at_once(
    folder: Path, server: LocalServer, pool: str
) -> None:
    """16. Take-over within 200 ms of a resignation; the component ends when its worker is asked to."""

    def end() -> float:
        with Site(folder / fresh_n()) as site:
            leader, other = leading(site, workers(site, pool))

            site.wait_for_signal("leader_observed", pid=other.pid, name="poll")
            leader.signal(signal.SIGTERM)
            wait_for_rounds(site, pid=other.pid)

            assert leader.wait() == 0
            resigned = site.wait_for_signal("leader_resigned", pid=leader.pid, name="poll")
            assert resigned["why"] == "ended"
            elected = site.wait_for_signal("leader_elected", pid=other.pid, name="poll")
            assert [line["pid"] for line in told(site, "deposed")] == [leader.pid]
            assert_terms_do_not_mix(site)
            return float(elected["at"] - resigned["at"])

    # The machine may let some of them wait. One that is not woken asks once a second, and may be in time by chance.
    times: list[float] = []
    while max(in_time := sum(took <= AT_ONCE for took in times), len(times) - in_time) < 3:
        times.append(end())
    assert in_time == 3, times


def test_a_component_survives_the_reconnects_of_its_workers_broker(site: Site) -> None:
    """Surviving broker reconnects: the term goes on, and so do the rounds."""
    [worker] = workers(site, "prefork", count=1)
    term = wait_for_rounds(site)[-1]["term"]

    for _ in range(2):
        site.client.client_kill_filter(_type="normal", skipme=True)
        site.client.client_kill_filter(_type="pubsub")
        wait_for_rounds(site, pid=worker.pid, term=term)
    worker.wait_for("Connection to broker lost")

    assert len(told(site, "elected")) == 1
    assert site.task("note").delay("after").get(timeout=30) == "after"


def test_a_component_that_is_stuck_moves_to_another_worker(site: Site) -> None:
    """Leadership follows health: a round that lasts longer than it may ends the term."""
    site.client.set("stuck", 1)
    all_workers = workers(site, "threads")
    first = int(wait_until(lambda: site.client.lrange("slow", 0, 0), "the slow one begins")[0])

    wait_until(lambda: len(set(site.client.lrange("slow", 0, -1))) == 2, "another worker begins it")

    resigned = site.wait_for_signal("leader_resigned", name="slow")
    assert (resigned["pid"], resigned["why"]) == (first, "stuck")
    site.client.delete("stuck")
    assert {worker.pid for worker in all_workers} == {int(pid) for pid in site.client.lrange("slow", 0, -1)}


def test_a_component_of_a_paused_worker_does_not_act_in_its_old_term(site: Site) -> None:
    """14. Two processes never both act inside their trust windows."""
    leader, other = leading(site, workers(site, "threads"))

    leader.signal(signal.SIGSTOP)
    wait_for_rounds(site, pid=other.pid)
    leader.signal(signal.SIGCONT)
    site.wait_for_signal("leader_deposed", pid=leader.pid, name="poll")
    wait_for_rounds(site, pid=other.pid, more=5)

    # One round may have been under way when the pause began: it is not interrupted.
    began = told(site, "elected")[-1]["at"]
    assert len([line for line in told(site) if line["pid"] == leader.pid and line["at"] > began]) <= 1


@pytest.mark.parametrize("pool", ["threads", "gevent"])
def test_operators_see_who_leads_and_ask_it_to_step_down(site: Site, pool: str) -> None:
    """7. Who leads, since when, term; step down on request."""
    started_at = time.time()
    leader, other = leading(site, workers(site, pool))

    wait_until(lambda: len(leaders(site.app)) > 1, "both components have a leader")
    by_name = {found.name: found for found in leaders(site.app)}
    assert set(by_name) == {"poll", "slow"}
    assert by_name["poll"].label.endswith(f":{leader.pid} the poller")
    assert started_at - 1 <= by_name["poll"].since <= told(site, "elected")[0]["at"] + 1

    now = step_down(site.app, "poll")

    assert now is not None
    assert now.term > by_name["poll"].term
    assert now.label.endswith(f":{other.pid} the poller")
    assert site.wait_for_signal("leader_resigned", pid=leader.pid, name="poll")["why"] == "asked"
    assert [line["pid"] for line in told(site, "deposed")] == [leader.pid]
    assert_terms_do_not_mix(site)
    assert site.task("note").delay("after").get(timeout=30) == "after"
