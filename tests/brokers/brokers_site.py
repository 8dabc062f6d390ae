"""A place with one broker, a store apart from it, and two workers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from brokers_table import Broker
from celery import Signature
from celery.result import AsyncResult
from coord_site import Site
from local_processes import PATIENCE, CeleryProcess
from whole_files import write_whole

from celery_coord.testing import LocalServer
from tests.faults.proxy import reserved

HERE = Path(__file__).parent
#: Where processes find the projects of this folder, and what those need.
_PATH = os.pathsep.join(filter(None, [str(HERE), str(HERE.parent / "integration"), os.environ.get("PYTHONPATH")]))
#: All workers of all brokers start at once.
LONGEST_START = 90.0
#: How many runs a worker has at once.
AT_ONCE = "2"


class Place(Site):
    """Workers of one broker; results and stories are in a Redis, the store is another.

    Args:
        folder: where the processes run.
        broker: which broker that is.
        url: its address.
        conf: settings that only show now.
    """

    def __init__(self, folder: Path, broker: Broker, url: str, **conf: Any) -> None:
        self._port = reserved()  # for the store, also while that is away
        self.store = LocalServer(port=self._port.getsockname()[1]).start()
        self.broker = broker
        super().__init__(
            folder,
            broker_url=url,
            coord_url=self.store.url,
            coord_store_timeout=10,  # a store on a busy machine may take its time
            task_acks_late=True,
            **{**broker.conf, **conf},
        )

    def start(self) -> None:
        """Start two workers, in two processes each; they are not ready yet."""
        self.workers = [self._one_worker() for _ in range(2)]

    def ready(self) -> None:
        for worker in self.workers:
            worker.wait_for(" ready.", timeout=LONGEST_START)

    def send(self, signature: Signature) -> AsyncResult:
        """Publish something."""
        return signature.apply_async()

    def run(self, task: str, n: str, **options: Any) -> AsyncResult:
        """Publish a run of a task on a key."""
        return self.send(self.task(task).si(n).set(**options))

    @contextmanager
    def holding(self, n: str, task: str = "hold", **kwargs: Any) -> Iterator[AsyncResult]:
        """A run that holds the key for as long as the block lasts, and then ends well."""
        result = self.run(task, n)
        self.wait_for_word(n, "begin")
        try:
            yield result
        finally:
            self.go(n)
        result.get(timeout=PATIENCE)

    def worker_of(self, pid: int) -> CeleryProcess:
        """The worker to which a process belongs that ran a body."""
        return next(worker for worker in self.workers if worker.pid in (pid, psutil.Process(pid).ppid()))

    def close(self) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGKILL)
        super().close()
        self.store.stop()
        self._port.close()

    def _one_worker(self) -> CeleryProcess:
        return self.worker("prefork", "-c", AT_ONCE)


class FilesPlace(Place):
    """Workers that share a folder: the second starts when the first has made the exchanges.

    Kombu makes the file of an exchange without a lock: who reads it in that instant reads nothing, and ends. So it is
    with the file of a message.
    """

    def celery(self, *arguments: str, **more: Any) -> CeleryProcess:
        return super().celery(*arguments, **{"project": "files_project", "env": {"PYTHONPATH": _PATH}, **more})

    def start(self) -> None:
        write_whole()
        self.workers = [self._one_worker()]
        self.ready()
        self.workers.append(self._one_worker())


class MemoryPlace(Place):
    """The one process that is broker, publisher and worker."""

    def start(self) -> None:
        self.workers = [self.worker("threads", project="memory_project", env={"PYTHONPATH": _PATH})]

    def send(self, signature: Signature) -> AsyncResult:
        result = signature.freeze()
        self.client.rpush("publish", json.dumps(signature))
        return result
