"""Daemons: what ``celery multi`` starts, each of which detaches itself as ``celery worker --detach`` does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from local_processes import wait_until

from celery_coord.testing import LocalServer
from tests.processes import project
from tests.processes.connections import ports_by_process, shared
from tests.processes.works import QUIET, Works

pytestmark = pytest.mark.server

NAMES = ("one", "two")


@pytest.fixture
def daemons(server: LocalServer, tmp_path: Path) -> Iterator[tuple[Works, dict[str, int]]]:
    """Two daemons, and the process of each."""
    with Works(tmp_path) as works:
        worker = ("-A", project.__name__, "-P", "prefork", "-c", "1", "-l", "INFO", *QUIET)
        queues = [option for name in NAMES for option in (f"-Q:{name}", name)]
        files = (f"--pidfile={tmp_path}/%n.pid", f"--logfile={tmp_path}/%n.log")
        subprocess.run(
            [sys.executable, "-m", "celery", "multi", "start", *NAMES, *worker, *queues, *files],
            cwd=tmp_path,
            env={**os.environ, **works.environment()},
            check=True,
            timeout=60,
        )
        try:
            yield works, {name: pid_of(tmp_path / f"{name}.pid") for name in NAMES}
        finally:
            for name in NAMES:
                end(pid_of(tmp_path / f"{name}.pid"))


def pid_of(file: Path) -> int:
    return int(wait_until(lambda: file.exists() and file.read_text().strip(), f"{file.name} is written"))


def end(pid: int) -> None:
    with suppress(psutil.NoSuchProcess):
        daemon = psutil.Process(pid)
        for process in (daemon, *daemon.children(recursive=True)):
            process.kill()


def test_daemons_have_connections_of_their_own_and_work(daemons: tuple[Works, dict[str, int]]) -> None:
    """Nothing that connects is begun before a daemon has detached itself; it, and its child, connect themselves."""
    works, pids = daemons

    came = {name: works.run(name, "visit")[0]["pid"] for name in NAMES}
    ports = {pid: found for daemon in pids.values() for pid, found in ports_by_process(daemon, works.store).items()}

    for name, daemon in pids.items():
        assert came[name] in [child.pid for child in psutil.Process(daemon).children()]
        assert ports[came[name]]
    assert shared(ports) == set()
