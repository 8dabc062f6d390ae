"""A process that starts while something is wrong with the store: what will pass is said, what will not refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from proxy import reserved
from scene import Process, Scene
from troubles import TROUBLES, Trouble

from celery_coord.testing import LocalServer
from celery_coord.worker import check

#: What waiting does not help against: a process refuses to start, and says in a sentence what to do.
REFUSED = {
    "read-only replica": "replica",
    "password changed": "password",
    "rights revoked": "right",
}
#: `coord_store_timeout` where nobody is to answer.
BRIEF = 0.4


@pytest.mark.parametrize("trouble", [trouble for trouble in TROUBLES if trouble.name not in REFUSED], ids=str)
def test_what_will_pass_is_said_and_does_not_keep_a_process_from_starting(
    server: LocalServer, tmp_path: Path, trouble: Trouble
) -> None:
    """It starts, and its runs are tried again until the store answers."""
    with trouble.scene(tmp_path / "data") as scene, Process(scene.url, coord_store_timeout=BRIEF) as process:
        with trouble.happens(scene):
            check(process.app)

        if trouble.name != "snapshot fails":  # there the server answers whoever does not write
            assert [told["doing"] for told in process.said("store_failed")] == ["starting"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_will_not_pass_keeps_a_process_from_starting(scene: Scene, name: str) -> None:
    [trouble] = [trouble for trouble in TROUBLES if trouble.name == name]
    with Process(scene.url) as process, trouble.happens(scene), pytest.raises(SystemExit) as refused:
        check(process.app)

    assert str(refused.value).startswith("celery_coord: coord_url")
    assert REFUSED[name] in str(refused.value)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_may_evict_leases_is_warned_of(scene: Scene, caplog: Any, policy: str) -> None:
    """What is evicted is forgotten; the sentence says which policy to set."""
    scene.client.config_set("maxmemory", "100mb")
    scene.client.config_set("maxmemory-policy", policy)

    check(scene.process.app)

    [line] = [record.message for record in caplog.records if "maxmemory-policy" in record.message]
    assert policy in line
    assert "noeviction" in line


def test_a_server_that_evicts_nothing_is_not_warned_of(scene: Scene, caplog: Any) -> None:
    scene.client.config_set("maxmemory", "100mb")

    check(scene.process.app)

    assert not caplog.records


def test_a_server_that_is_not_there_is_said(server: LocalServer, caplog: Any) -> None:
    with reserved() as nobodys, Process(f"redis://127.0.0.1:{nobodys.getsockname()[1]}/0") as process:
        check(process.app)

    assert "the store failed while starting" in caplog.text
