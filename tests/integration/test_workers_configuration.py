"""Settings are Celery settings: however an application is configured, its worker uses the store that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from celery import Celery
from coord_site import Site, fresh_n
from local_processes import PATIENCE

from celery_coord import CoordinatedTask, TaskDropped
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server


@pytest.mark.parametrize("style", ["attribute", "module", "module_by_name", "namespace", "upper_case", "django"])
def test_the_worker_uses_the_store_that_the_setting_names(folder: Path, server: LocalServer, style: str) -> None:
    """Apps configured by attribute, module, namespace (`CELERY_COORD_URL`) and Django style."""
    if style == "django":
        pytest.importorskip("django")
    n = fresh_n()
    with LocalServer() as store, redis.Redis.from_url(store.url) as looking, Site(folder) as site:
        site.ready_workers(project="configured_project", env={"PROJECT_STYLE": style, "PROJECT_STORE": store.url})

        with site.holding(n):
            assert looking.exists(site.lock_name(n))
            assert not site.client.exists(site.lock_name(n))


def test_without_a_store_of_its_own_the_result_backend_serves(folder: Path, server: LocalServer) -> None:
    """Without `coord_url` the result backend's Redis serves."""
    n = fresh_n()
    with LocalServer() as broker, Site(folder, coord_url=None, broker_url=broker.url) as site:
        site.ready_workers()

        with site.holding(n):
            assert site.client.exists(site.lock_name(n))


def test_without_a_redis_for_results_the_broker_serves(folder: Path, server: LocalServer) -> None:
    """Without `coord_url` the result backend's Redis serves, else the broker's."""
    n = fresh_n()
    with Site(folder, coord_url=None, result_backend="cache+memory://") as site:
        site.ready_workers()
        site.task("hold").delay(n)
        site.wait_for_word(n, "begin")

        assert site.client.exists(site.lock_name(n))
        site.go(n)


def test_two_applications_on_one_server_are_kept_apart_by_their_namespace(folder: Path, server: LocalServer) -> None:
    """`coord_namespace` is what the keys in the store begin with."""
    n = fresh_n()
    with Site(folder, coord_namespace="shop", coord_url=None) as site:
        site.ready_workers()

        with site.holding(n):
            assert site.client.exists(f"lock:{{shop:n:{n}}}")
            assert not site.client.exists(site.lock_name(n))


def test_annotations_make_a_task_exclusive_and_quiet(prefork: Site) -> None:
    """The options `exclusive` and `cooldown` may come through `task_annotations`."""
    n, annotated = fresh_n(), prefork.task("annotated")

    with annotated.lock(n), pytest.raises(TaskDropped, match="held"):
        annotated.delay(n).get(timeout=PATIENCE)
    assert annotated.delay(n).get(timeout=PATIENCE)["token"] > 0
    with pytest.raises(TaskDropped, match="cooling"):
        annotated.delay(n).get(timeout=PATIENCE)


def test_as_the_task_class_of_an_app_it_leaves_tasks_without_options_alone() -> None:
    """`celery_coord` as `task_cls` of an app leaves tasks without options alone: they need no store."""
    app = Celery("plain", task_cls="celery_coord:CoordinatedTask", broker="memory://", set_as_current=False)

    @app.task(bind=True, shared=False)  # type: ignore[untyped-decorator]  # Celery has no types
    def own_id(self: CoordinatedTask, factor: int) -> tuple[str, int]:
        return self.request.id, factor

    result = own_id.apply((2,))

    assert isinstance(own_id, CoordinatedTask)
    assert result.get() == (result.id, 2)
    assert own_id(3) == (None, 3)


def test_a_worker_of_tasks_without_options_needs_no_store(folder: Path, server: LocalServer) -> None:
    """`celery_coord` as `task_cls` of an app leaves tasks without options alone: also where the store cannot work."""
    with Site(folder) as site:
        site.ready_workers(project="plain_project")

        result = site.app.send_task("own_id", (2,))

        assert result.get(timeout=PATIENCE) == [result.id, 2]
