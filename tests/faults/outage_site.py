"""A site whose store is apart from its broker, and may fail while that goes on."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from celery.result import AsyncResult
from coord_site import Site
from local_processes import HERE, CeleryProcess
from scene import TIMEOUT, Scene

#: Where workers find the projects: those of this folder, and those of the integration tests.
_PATH = os.pathsep.join(filter(None, [str(Path(__file__).parent), str(HERE), os.environ.get("PYTHONPATH")]))


class OutageSite(Site):
    """A site, and the scene of its store.

    Args:
        folder: where the processes run.
        conf: settings beside those for broker, results and store.
    """

    def __init__(self, folder: Path, **conf: Any) -> None:
        self.scene = Scene()
        super().__init__(folder, coord_url=self.scene.url, coord_store_timeout=TIMEOUT, **conf)
        self._started: list[CeleryProcess] = []

    def start_worker(self, *options: str, project: str = "outage_project", **conf: Any) -> CeleryProcess:
        """Start a worker that has threads; it is not ready yet."""
        worker = self.worker("threads", *options, project=project, env={"PYTHONPATH": _PATH}, **conf)
        self._started.append(worker)
        return worker

    def close(self) -> None:
        for worker in self._started:
            worker.signal(signal.SIGKILL)  # nobody waits for its orderly end
        super().close()
        self.scene.__exit__()

    def send(self, task: str, n: str, *, queue: str = "celery") -> AsyncResult:
        """Send a task of `outage_project`."""
        return self.app.send_task(task, args=(n,), queue=queue)
