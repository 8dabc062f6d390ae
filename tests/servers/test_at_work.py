"""The three uses, with a real worker and two real beats, at each kind of set-up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from coord_commands import run_coord
from coord_site import Site, fresh_n
from local_processes import PATIENCE

from celery_coord import TaskDropped
from tests.servers.cells import Cell, chosen

#: Where in each run workers and beats are started; elsewhere they are, at one server and at sentinels.
AT_WORK = ("cluster-user@valkey-8.1",)

#: Messages often, and a leader's lease that outlives a pause of this machine.
SCHEDULE = {"often": {"task": "note", "schedule": 0.2, "args": ["tick"]}}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "place" in metafunc.fixturenames:
        cells = [pytest.param(cell, id=str(cell), marks=pytest.mark.server) for cell in chosen(AT_WORK)]
        metafunc.parametrize("place", cells, indirect=True, scope="module")


@pytest.fixture(scope="module")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The broker and the results are on a server of their own, and the store is where the parameter says."""
    cell: Cell = request.param
    with cell.started() as set_up:
        folder = tmp_path_factory.mktemp("site")
        with Site(folder, coord_url=set_up.url, beat_schedule=SCHEDULE, coord_leader_ttl=12) as site:
            site.workers = [site.worker("prefork", "-c", "2")]
            beats = [site.beat(name) for name in ("one", "other")]
            site.workers[0].wait_for(" ready.")
            for beat in beats:
                beat.wait_for("beat: Starting")
            yield site


def test_of_two_runs_on_a_key_one_is_admitted(place: Site) -> None:
    n = fresh_n()

    with place.holding(n), pytest.raises(TaskDropped) as caught:
        place.task("step").delay(n).get(timeout=PATIENCE)

    assert caught.value.reason == "held"
    assert place.task("step").delay(n).get(timeout=PATIENCE)["token"] > place.story(n)[0]["token"]


def test_a_run_in_the_quiet_period_is_dropped(place: Site) -> None:
    n, costly = fresh_n(), place.task("costly")

    costly.delay(n).get(timeout=PATIENCE)
    with pytest.raises(TaskDropped) as caught:
        costly.delay(n).get(timeout=PATIENCE)

    assert caught.value.reason == "cooling"
    assert costly.clear_cooldown(n)
    assert costly.delay(n).get(timeout=PATIENCE)


def test_code_outside_takes_the_same_lock(place: Site) -> None:
    n, step = fresh_n(), place.task("step")

    with step.lock(n), pytest.raises(TaskDropped):
        step.delay(n).get(timeout=PATIENCE)

    assert step.delay(n).get(timeout=PATIENCE)


def test_a_beat_leads_and_hands_over_to_another(place: Site) -> None:
    place.wait_for_word("tick", "note", times=2)
    [leader] = leaders(place)

    stepped_down = run_coord(place, "step-down", "beat")

    assert stepped_down.returncode == 0, stepped_down.stderr
    [now] = leaders(place)
    assert f"leads now, term {now['term']}" in stepped_down.stdout
    place.wait_for_signal("leader_elected", term=now["term"])
    assert [signal["term"] for signal in place.signals("leader_elected")] == [leader["term"], now["term"]]


def leaders(place: Site) -> list[dict[str, Any]]:
    """What ``celery coord leaders`` prints of them."""
    return list(json.loads(run_coord(place, "leaders", "--json").stdout))
