"""9. Whatever starts while the store is away starts, says so, and works when the store is there."""

from __future__ import annotations

import json
from pathlib import Path

from coord_site import fresh_n
from local_processes import PATIENCE, wait_until
from outage_site import OutageSite

from celery_coord.testing import LocalServer

SAYS = "the store failed while starting"


def test_a_worker_a_component_and_a_beat_start_without_a_store_and_work_when_it_is_there(
    server: LocalServer, tmp_path: Path
) -> None:
    schedule = {"often": {"task": "note", "schedule": 0.1, "args": ["tick"], "options": {"queue": "ticks"}}}
    with OutageSite(tmp_path, beat_schedule=schedule, coord_leader_ttl=2, coord_store_retry_pause=2) as site:
        site.scene.proxy.die()
        n = fresh_n()
        worker, beat = site.start_worker(project="component_project"), site.beat("beat")
        worker.wait_for(" ready.")
        beat.wait_for(SAYS)
        run = site.send("step", n)
        site.wait_for_signal("task_deferred", task_id=run.id, why="store")

        assert SAYS in worker.output
        assert site.client.llen("component") == 0
        assert site.client.llen("ticks") == 0
        assert not site.signals("leader_elected")
        site.scene.proxy.heal()

        assert run.get(timeout=PATIENCE)["token"] > 0
        wait_until(lambda: "round" in told_by_component(site), "a round of the component")
        wait_until(lambda: site.client.llen("ticks"), "beat sends")
        for process in (worker, beat):
            process.wait_for("the store answers again")


def told_by_component(site: OutageSite) -> list[str]:
    return [json.loads(line)["what"] for line in site.client.lrange("component", 0, -1)]
