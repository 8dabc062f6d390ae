"""docker-compose.yml, held against the example: what it names exists, and its commands run as they stand."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from example_project import settings
from example_project.components import COMPONENT
from example_project.inventory import read_inventory

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
COMMENT = [line for line in TEXT.splitlines() if line.startswith("#")]
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]

WORKERS = ("worker-1", "worker-2")
BEATS = ("beat-1", "beat-2")
MONITOR = (*WORKERS, *BEATS, "api")
SERVERS = ("coord", "orders", "orders-replica", "orders-unlisted", "billing")

READY = {"worker-1": " ready.", "worker-2": " ready.", "beat-1": "beat: Starting...", "beat-2": "beat: Starting..."}


def test_the_topology_is_that_of_the_example() -> None:
    assert set(SERVICES) == {"install", *SERVERS, *MONITOR}


def test_only_stock_images_are_used() -> None:
    assert {service["image"] for service in SERVICES.values()} == {"valkey/valkey:8-alpine", "python:3.12-slim"}
    assert not any("build" in service for service in SERVICES.values())


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"] == ["CMD", "valkey-cli", "ping"]


@pytest.mark.parametrize("name", MONITOR)
def test_a_part_of_the_monitor_waits_for_what_it_needs(name: str) -> None:
    assert SERVICES[name]["depends_on"] == {
        "install": {"condition": "service_completed_successfully"},
        "coord": {"condition": "service_healthy"},
    }


@pytest.mark.parametrize("name", MONITOR)
def test_every_setting_is_one_that_the_example_reads(name: str) -> None:
    said = {variable for variable in SERVICES[name]["environment"] if variable.startswith("MONITOR_")}

    assert said
    assert said <= set(settings.ENVIRONMENT)


@pytest.mark.parametrize("name", MONITOR)
def test_the_store_is_the_service_that_serves_it(name: str) -> None:
    assert SERVICES[name]["environment"]["MONITOR_REDIS_URL"] == "redis://coord:6379/0"


def test_the_inventory_names_servers_of_the_composition() -> None:
    inside = Path(SERVICES["worker-1"]["environment"]["MONITOR_INVENTORY"])

    inventory = read_inventory(ROOT / inside.relative_to("/project"))

    listed = {node.host for nodes in inventory.values() for node in nodes}
    assert listed == set(SERVERS) - {"coord", "orders-unlisted"}
    assert {node.port for nodes in inventory.values() for node in nodes} == {6379}


@pytest.mark.parametrize("name", ["orders-replica", "orders-unlisted"])
def test_the_replicas_follow_the_primary(name: str) -> None:
    assert SERVICES[name]["command"].endswith("--replicaof orders 6379")


def test_a_volume_is_written_by_the_installer_alone() -> None:
    assert "venv:/venv" in SERVICES["install"]["volumes"]
    assert list(COMPOSE["volumes"]) == ["venv"]
    for name in MONITOR:
        assert SERVICES[name]["volumes"] == [".:/project:ro", "venv:/venv:ro"]


def test_the_installer_copies_what_the_project_needs_to_be_installed() -> None:
    copied = next(line for line in SERVICES["install"]["command"][-1].splitlines() if line.startswith("cp -r"))

    *sources, _ = copied.split()[2:]

    assert set(sources) == {"pyproject.toml", "README.md", "LICENSE", "celery_coord"}
    assert all((ROOT / source).exists() for source in sources)


class Service:
    """A service as a process of this machine: its command as it stands, its environment with the places of here."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self._log = folder / f"{name}.log"
        # Without the names that only compose gives: to ask for them here may take longer than a service has to end.
        inventory, listed = folder / "inventory.toml", ROOT / "example_project" / "inventory.toml"
        here = f'"127.0.0.1:{urlsplit(url).port}"'
        nodes = re.sub(r'"[a-z-]+:6379"', here, listed.read_text(encoding="utf-8"))
        inventory.write_text(nodes, encoding="utf-8")
        self.environment = {
            **os.environ,
            **SERVICES[name]["environment"],
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "HOSTNAME": socket.gethostname(),
            "MONITOR_REDIS_URL": url,
            "MONITOR_INVENTORY": str(inventory),
            "MONITOR_SCHEDULE_FILE": str(folder / "schedule"),
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                shlex.split(SERVICES[name]["command"]),
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def await_line(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in (said := self._log.read_text(encoding="utf-8")):
            assert self.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def end(self) -> int:
        """End it as `docker compose stop` does."""
        self.process.terminate()
        try:
            # Children of prefork wait for half a minute where the results that they sent last are not read any more.
            return self.process.wait(timeout=90)
        except subprocess.TimeoutExpired:
            pytest.fail(self._log.read_text(encoding="utf-8"))
        finally:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def service(request: pytest.FixtureRequest, redis_url: str, tmp_path: Path) -> Iterator[Service]:
    started = Service(request.param, redis_url, tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.server
@pytest.mark.parametrize(("service", "line"), READY.items(), indirect=["service"], ids=READY)
def test_a_celery_command_runs_as_it_stands(service: Service, line: str) -> None:
    service.await_line(line)

    assert service.end() == 0


@pytest.mark.server
@pytest.mark.parametrize(("service", "name"), [(name, name) for name in WORKERS], indirect=["service"], ids=WORKERS)
def test_the_health_check_of_a_worker_tells_a_worker_that_runs_from_one_that_does_not(
    service: Service, name: str
) -> None:
    service.await_line(" ready.")
    deadline = time.monotonic() + 60
    while _health(service, name) != 0:  # as Docker does, it is asked again
        assert time.monotonic() < deadline

    assert service.end() == 0

    assert _health(service, name) != 0


def _health(service: Service, name: str) -> int:
    check = SERVICES[name]["healthcheck"]["test"].replace("$$", "$")
    done = subprocess.run(check, shell=True, cwd=ROOT, env=service.environment, capture_output=True, check=False)  # noqa: S602
    return done.returncode


@pytest.mark.server
@pytest.mark.parametrize("service", ["worker-1"], indirect=True)
def test_the_command_that_shows_who_runs_the_component_runs_as_it_stands(service: Service) -> None:
    [line] = [line for line in COMMENT if line.endswith(" coord leaders")]
    service.await_line(f"{COMPONENT}: elected")

    asked = subprocess.run(
        shlex.split(line.partition(" exec worker-1 ")[2]),
        cwd=ROOT,
        env=service.environment,
        capture_output=True,
        check=False,
        text=True,
    )

    assert asked.returncode == 0, asked.stderr
    assert COMPONENT in asked.stdout


@pytest.mark.server
def test_the_api_runs_as_it_stands_and_asks_for_refreshes(redis_url: str, client: Any, tmp_path: Path) -> None:
    api = Service("api", redis_url, tmp_path)
    try:
        deadline = time.monotonic() + 60
        while not client.llen("celery"):
            assert api.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        ended = api.end()

    assert ended == 0
