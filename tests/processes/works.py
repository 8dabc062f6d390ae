"""A broker, a store and a server of the results, each apart, and workers of every pool."""

from __future__ import annotations

import itertools
import json
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from celery.result import AsyncResult

from celery_coord.testing import LocalServer
from tests.faults.proxy import reserved
from tests.integration.local_processes import PATIENCE, CeleryProcess, wait_until
from tests.integration.results_seen import miss_no_result
from tests.processes import project
from tests.processes.connections import ports_by_process

ROOT = Path(__file__).resolve().parents[2]
#: What no worker here needs, and what would connect it to others.
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")
_numbers = itertools.count(1)


def fresh_n() -> str:
    """An argument, and so a key, that no other test uses."""
    return f"n{next(_numbers)}"


class Works:
    """Workers by the name of their queue, each of its own kind, and beats by their own.

    Args:
        folder: where they run.
        conf: settings beside those for broker, results and store.
    """

    def __init__(self, folder: Path, **conf: Any) -> None:
        self._stack = ExitStack()
        self.folder = folder
        self.broker = self._stack.enter_context(LocalServer())
        port = self._stack.enter_context(reserved())  # for the store, also while that is away
        self.store = self._stack.enter_context(LocalServer(port=port.getsockname()[1]))
        self.results = self._stack.enter_context(LocalServer())
        self.conf = {
            "broker_url": self.broker.url,
            "result_backend": self.results.url,
            "coord_url": self.store.url,
            "broker_connection_retry_on_startup": True,
            "worker_prefetch_multiplier": 1,
            "worker_send_task_events": False,
            **conf,
        }
        self.app = self._stack.enter_context(project.make_app(**self.conf))
        miss_no_result(self.app)
        self.workers: dict[str, CeleryProcess] = {}

    def environment(self, **conf: Any) -> dict[str, str]:
        """What a process of the project needs to know."""
        told = {project.CONF: json.dumps({**self.conf, **conf}), project.FOLDER: str(self.folder)}
        return {**told, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}

    def start(self, queue: str, pool: str, *options: str, **conf: Any) -> CeleryProcess:
        """Start the worker of a queue; it is not ready yet."""
        command = ("-A", project.__name__, "worker", "-P", pool, "-Q", queue, "-n", f"{queue}@%h", "-l", "INFO")
        worker = CeleryProcess(self.folder / queue, [*command, *QUIET, *options], self.environment(**conf))
        self.workers[queue] = self._stack.enter_context(worker)
        return worker

    def beat(self, name: str) -> CeleryProcess:
        """Start a beat under the leader's scheduler; it neither leads nor follows yet."""
        leader = ("beat", "-S", "celery_coord.beat:LeaderScheduler", "-l", "INFO", "--pidfile=")
        beat = CeleryProcess(self.folder / name, ["-A", project.__name__, *leader], self.environment())
        self.workers[name] = self._stack.enter_context(beat)
        return beat

    def ready(self) -> Self:
        """Wait until all workers are."""
        for worker in self.workers.values():
            worker.wait_for(" ready.")
        return self

    def send(self, queue: str, task: str, times: int = 1) -> list[AsyncResult]:
        """Publish so many runs, each on a key of its own."""
        return [self.app.tasks[task].apply_async((fresh_n(),), queue=queue) for _ in range(times)]

    def run(self, queue: str, task: str, times: int = 1) -> list[Any]:
        """The results of so many runs."""
        return results_of(self.send(queue, task, times))

    def connections(self, queue: str) -> dict[int, set[int]]:
        """For each process of a worker, or of a beat, the ports from which it is connected to the store."""
        return ports_by_process(self.workers[queue].pid, self.store)

    def stays(self) -> list[str]:
        """The arguments of the bodies that stay, or have stayed."""
        told = self.folder / "stays.txt"
        return told.read_text().split() if told.exists() else []

    def wait_for_stays(self, runs: int) -> None:
        wait_until(lambda: len(self.stays()) >= runs, f"{runs} bodies stay")

    def go(self) -> None:
        """Let those bodies end."""
        (self.folder / "go").touch()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.signal(signal.SIGKILL)
        self.app.backend.on_result_fulfilled = lambda _: None  # results may outlive the server
        self._stack.close()


def results_of(runs: list[AsyncResult]) -> list[Any]:
    """What they returned; asked for when all are there, as to wait for one after the other takes its time."""
    # Some of them wait for children, or daemons, that are only just being made.
    wait_until(lambda: all(run.ready() for run in runs), f"{len(runs)} runs end", timeout=90)
    return [run.get(timeout=PATIENCE) for run in runs]
