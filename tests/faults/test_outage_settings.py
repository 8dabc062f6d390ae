"""9. What becomes of a run that meets no store: the task says it, else the setting; and for how long it is tried."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from coord_site import fresh_n
from local_processes import PATIENCE, wait_until
from outage_site import OutageSite

from celery_coord import StoreError
from celery_coord.testing import LocalServer

#: Queues of workers whose `coord_on_store_error` is that.
SETTINGS = ("run", "fail")
#: Tasks whose `on_store_error` is that, and one that leaves it to the setting.
TASKS = {"retry": "patient", "run": "careless", "fail": "strict", "": "step"}
#: A queue of a worker whose `coord_store_retry_for` is that, in seconds; "retry" is the default.
GIVES_UP, RETRY_FOR = "gives-up", 8.0


@pytest.fixture(scope="module")
def site(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutageSite]:
    """A worker for each choice; their store goes away when they are ready."""
    with OutageSite(tmp_path_factory.mktemp("settings"), coord_store_retry_pause=2) as site:
        workers = [site.start_worker("-Q", setting, coord_on_store_error=setting) for setting in SETTINGS]
        workers.append(site.start_worker("-Q", GIVES_UP, coord_store_retry_for=RETRY_FOR))
        for worker in workers:
            worker.wait_for(" ready.")
        yield site


@pytest.fixture
def away(site: OutageSite) -> Iterator[OutageSite]:
    """The site, while its store is away."""
    site.scene.proxy.die()
    yield site
    site.scene.proxy.heal()


CHOICES = [(setting, choice) for setting in SETTINGS for choice in TASKS]


@pytest.mark.parametrize(("setting", "choice"), CHOICES, ids=[f"{s}, task {c or 'silent'}" for s, c in CHOICES])
def test_the_task_says_what_becomes_of_a_run_and_else_the_setting(away: OutageSite, setting: str, choice: str) -> None:
    n = fresh_n()
    run = away.send(TASKS[choice], n, queue=setting)

    match choice or setting:
        case "retry":
            assert away.wait_for_signal("task_deferred", task_id=run.id)["why"] == "store"
            assert (run.state, away.words(n)) == ("PENDING", [])
            away.scene.proxy.heal()
            assert run.get(timeout=PATIENCE)["token"] > 0
        case "run":
            assert run.get(timeout=PATIENCE)["token"] is None
            assert away.wait_for_signal("task_unguarded", task_id=run.id)["key"] == f"n:{n}"
        case "fail":
            with pytest.raises(StoreError):
                run.get(timeout=PATIENCE)
            assert away.words(n) == []
            assert not away.signals("task_deferred", task_id=run.id)


def test_a_run_that_was_tried_for_long_enough_fails(away: OutageSite) -> None:
    """`coord_store_retry_for`: no try comes later than that."""
    n = fresh_n()
    run = away.send("patient", n, queue=GIVES_UP)

    with pytest.raises(StoreError):
        run.get(timeout=PATIENCE)

    pauses = [told["countdown"] for told in away.signals("task_deferred", task_id=run.id)]
    assert pauses
    assert sum(pauses) <= RETRY_FOR
    assert away.words(n) == []


def test_a_run_whose_store_comes_back_in_time_does_not_fail(away: OutageSite) -> None:
    """And what it had waited for before does not count against a later outage."""
    n = fresh_n()
    run = away.send("patient", n, queue=GIVES_UP)
    away.wait_for_signal("task_deferred", task_id=run.id)

    away.scene.proxy.heal()

    assert run.get(timeout=PATIENCE)["token"] > 0
    wait_until(lambda: away.words(n) == ["begin", "end"], "one body")
