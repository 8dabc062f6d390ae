"""When the store cannot be reached a run is neither dropped nor let through, unless the setting says otherwise."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import redis
from black_holes import reserved_port
from coord_site import Site, fresh_n
from local_processes import PATIENCE, wait_until

from celery_coord import StoreError
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server


@pytest.fixture
def store(server: LocalServer) -> Iterator[LocalServer]:
    """A store apart from the broker: it can be stopped."""
    with reserved_port() as port, LocalServer(port=port) as store:
        yield store


def no_store(port: int) -> str:
    return f"redis://127.0.0.1:{port}/0"


def test_a_run_is_tried_again_until_the_store_is_back(folder: Path, store: LocalServer) -> None:
    """9. When the store cannot be reached, a run is neither dropped nor let through: it is tried again later."""
    with Site(folder, coord_url=store.url) as site:
        n = fresh_n()
        site.ready_workers("threads")
        store.stop()

        run = site.task("step").delay(n)
        waits = site.wait_for_signal("task_deferred", task_id=run.id)
        assert (waits["why"], run.state, site.words(n)) == ("store", "PENDING", [])
        store.start()

        assert run.get(timeout=PATIENCE)["token"] > 0
        assert site.words(n) == ["begin", "end"]
        assert site.signals("store_failed")
        assert "the store failed while asking for" in site.output()


def test_a_running_body_finds_its_lease_lost_in_time(folder: Path, store: LocalServer) -> None:
    """5. A holder that cannot renew knows it, in time, without asking the store."""
    with Site(folder, coord_url=store.url) as site:
        n = fresh_n()
        site.ready_workers("threads")
        running = site.task("watchful").delay(n)
        site.wait_for_word(n, "begin")

        store.stop()
        site.wait_for_word(n, "lost")
        site.wait_for_signal("lease_lost", key=f"n:{n}", why="unrenewed")
        site.go(n)

        assert running.get(timeout=PATIENCE)["lost"] is True


def test_the_result_of_a_body_survives_a_store_that_went_away(folder: Path, store: LocalServer) -> None:
    """A lease that cannot be settled ends by itself: the run's own end does not change for it."""
    with Site(folder, coord_url=store.url) as site:
        n = fresh_n()
        site.ready_workers("threads")

        with site.holding(n) as running:
            store.stop()

        assert running.state == "SUCCESS"
        assert any(said["doing"] == f"settling n:{n}" for said in site.signals("store_failed"))


def test_a_worker_starts_while_the_store_is_away_and_says_so(folder: Path, server: LocalServer) -> None:
    """A worker whose store is away starts, and says so; with "run" a run is let through, which is said, too."""
    with reserved_port() as port, Site(folder, coord_url=no_store(port), coord_on_store_error="run") as site:
        n = fresh_n()
        [worker] = site.ready_workers("threads")
        assert "the store failed while starting" in worker.output

        run = site.task("step").delay(n)

        assert run.get(timeout=PATIENCE)["token"] is None
        assert site.wait_for_signal("task_unguarded", task_id=run.id)["key"] == f"n:{n}"
        wait_until(lambda: f"step[{run.id}] runs without a lease on n:{n}" in worker.output, "a log line")


def test_with_the_setting_fail_a_run_fails(folder: Path, server: LocalServer) -> None:
    """9. The setting can say otherwise: with "fail" the run fails, and its body never starts."""
    with reserved_port() as port, Site(folder, coord_url=no_store(port), coord_on_store_error="fail") as site:
        n = fresh_n()
        site.ready_workers("threads")

        with pytest.raises(StoreError):
            site.task("step").delay(n).get(timeout=PATIENCE)

        assert site.words(n) == []


@contextmanager
def refusing(store: LocalServer) -> Iterator[None]:
    """The store takes no writes for as long as the block lasts, and forgets nothing."""
    with redis.Redis.from_url(store.url) as client:
        client.config_set("min-replicas-to-write", 1)
        yield
        client.config_set("min-replicas-to-write", 0)


def assert_settled(site: Site, store: LocalServer, n: str) -> None:
    """The lease is over, the quiet period has begun, and the run is remembered as ended."""
    with redis.Redis.from_url(store.url, decode_responses=True) as client:
        wait_until(lambda: not client.exists(site.lock_name(n)), "the lease ends")
        assert client.exists(site.cooldown_name(n))
        [done] = client.keys(f"coord1-done:{{coord:n:{n}}}*")
        assert str(client.get(done)).startswith("0 ")


def test_what_a_body_earned_is_not_lost_with_a_child_that_has_had_its_tasks(folder: Path, store: LocalServer) -> None:
    """12. The quiet period begins when the store is back, though the child was to be followed by another."""
    with Site(folder, coord_url=store.url) as site:
        n = fresh_n()
        site.worker("prefork", "--max-tasks-per-child=1").wait_for(" ready.")

        with ExitStack() as stack:
            running = stack.enter_context(site.holding(n, "costly", wait=True))
            stack.enter_context(refusing(store))
            site.go(n)
            site.wait_for_signal("store_failed", doing=f"settling n:{n}")
            running.get(timeout=PATIENCE)

        assert_settled(site, store, n)


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_what_a_body_earned_is_not_lost_with_a_worker_that_is_asked_to_stop(
    folder: Path, store: LocalServer, pool: str
) -> None:
    """12. The worker waits a while for the store, so that the quiet period begins."""
    with Site(folder, coord_url=store.url) as site:
        n = fresh_n()
        [worker] = site.ready_workers(pool)

        with ExitStack() as stack:
            running = stack.enter_context(site.holding(n, "costly", wait=True))
            stack.enter_context(refusing(store))
            worker.signal(signal.SIGTERM)
            site.go(n)
            site.wait_for_signal("store_failed", doing=f"settling n:{n}")
            running.get(timeout=PATIENCE)

        worker.wait()
        assert_settled(site, store, n)
