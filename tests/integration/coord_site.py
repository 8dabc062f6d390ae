"""A place to test at: a server, the application on it, and workers and beats as processes."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import coord_project
import redis
from celery.result import AsyncResult
from local_processes import PATIENCE, CeleryProcess, wait_until
from results_seen import miss_no_result

from celery_coord.testing import LocalServer
from tests.servers import rights

_numbers = itertools.count(1)


def fresh_n() -> str:
    """An argument, and so a key, that no other test uses."""
    return f"n{next(_numbers)}"


class Site:
    """A server of its own, and the application with its processes.

    Args:
        folder: where the processes run.
        conf: settings beside those for broker and results.
    """

    def __init__(self, folder: Path, **conf: Any) -> None:
        self._folder = folder
        self.workers: list[CeleryProcess] = []
        self._stack = ExitStack()
        self.server = self._stack.enter_context(LocalServer(rights.server_options()))
        self.conf = {
            "broker_url": self.server.url,
            "result_backend": self.server.url,
            # The store knows a user with the rights that docs/servers.md prints; broker and results take more.
            "coord_url": rights.url_of_user(self.server.url),
            "broker_connection_retry_on_startup": True,
            "worker_prefetch_multiplier": 1,
            "task_annotations": {"annotated": {"exclusive": True, "cooldown": 60}},
            **conf,
        }
        self.app = self._stack.enter_context(coord_project.make_app(**self.conf))
        miss_no_result(self.app)
        self.client: redis.Redis = self._stack.enter_context(
            redis.Redis.from_url(self.server.url, decode_responses=True)
        )

    def task(self, name: str) -> Any:
        return self.app.tasks[name]

    def celery(
        self,
        *arguments: str,
        project: str = "coord_project",
        folder: str = "",
        env: Mapping[str, str] | None = None,
        **conf: Any,
    ) -> CeleryProcess:
        """Start a command of Celery's.

        Args:
            arguments: what stands behind ``celery -A project``.
            project: the module of the application.
            folder: a name for the folder in which it runs.
            env: variables beside those that tell the project of this site.
            conf: settings that differ from the site's.
        """
        environment = {coord_project.URL: self.server.url, coord_project.CONF: json.dumps({**self.conf, **conf})}
        environment.update(env or {})
        where = self._folder / (folder or f"process-{next(_numbers)}")
        return self._stack.enter_context(CeleryProcess(where, ["-A", project, *arguments], environment))

    def worker(self, pool: str = "solo", *options: str, **more: Any) -> CeleryProcess:
        """Start a worker; it is not ready yet. What else there is goes to `celery`."""
        name = f"{pool}-{next(_numbers)}@%h"
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        return self.celery("worker", "-P", pool, "-n", name, "-c", "4", "-l", "INFO", *quiet, *options, **more)

    def ready_workers(self, pool: str = "solo", *, count: int = 1, **more: Any) -> list[CeleryProcess]:
        """Start so many workers, and wait until they are ready."""
        self.workers = [self.worker(pool, **more) for _ in range(count)]
        for worker in self.workers:
            worker.wait_for(" ready.")
        return self.workers

    def output(self) -> str:
        """What the workers have printed so far."""
        return "\n".join(worker.output for worker in self.workers)

    def beat(self, folder: str, *options: str, **conf: Any) -> CeleryProcess:
        """Start a beat under the leader's scheduler."""
        leader = ("-S", "celery_coord.beat:LeaderScheduler", "-l", "INFO", "--pidfile=")
        return self.celery("beat", *leader, *options, folder=folder, **conf)

    def lock_name(self, n: str) -> str:
        return f"lock:{{coord:n:{n}}}"

    def lease_name(self, n: str) -> str:
        return f"coord1-lease:{{coord:n:{n}}}"

    def cooldown_name(self, n: str) -> str:
        return f"coord1-cooldown:{{coord:n:{n}}}"

    def story(self, n: str) -> list[dict[str, Any]]:
        """What the bodies on this key told, in order."""
        return [json.loads(line) for line in self.client.lrange(f"story:{n}", 0, -1)]

    def words(self, n: str) -> list[str]:
        return [told["word"] for told in self.story(n)]

    def wait_for_word(self, n: str, word: str, *, times: int = 1, timeout: float = PATIENCE) -> dict[str, Any]:
        """Until the bodies on this key told a word so often.

        Returns:
            What was told with it, the last time.
        """
        wait_until(lambda: self.words(n).count(word) >= times, f"{word!r} of {n}, {times} times", timeout=timeout)
        return [told for told in self.story(n) if told["word"] == word][-1]

    def go(self, *keys: str) -> None:
        """Let the bodies on these keys end."""
        for n in keys:
            self.client.set(f"go:{n}", 1)

    def stay(self, n: str) -> None:
        """Let the next body on this key wait again."""
        self.client.delete(f"go:{n}")

    def signals(self, name: str, /, **fields: Any) -> list[dict[str, Any]]:
        """The signals of this name with these fields, in order."""
        said = [json.loads(line) for line in self.client.lrange(f"signals:{name}", 0, -1)]
        return [signal for signal in said if fields.items() <= signal.items()]

    def wait_for_signal(self, name: str, /, *, timeout: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Until there is such a signal; the first one."""
        return wait_until(lambda: self.signals(name, **fields), f"signal {name} {fields}", timeout=timeout)[0]

    def wait_until_asked(self, name: str) -> None:
        """Until one who follows has just asked who leads: it asks again a second later, unless it is woken."""
        next(self.asks(name))

    def asks(self, name: str) -> Iterator[tuple[float, int]]:
        """Whenever one who follows asks who leads: when, by the server's clock, and the port from which it asks."""
        asks, deadline = f"BLPOP lock-signal:{{coord:leader:{name}}} ", time.monotonic() + PATIENCE
        with self.client.monitor() as monitor:
            while True:
                said = monitor.next_command()
                if said["command"].startswith(asks):
                    yield said["time"], int(said["client_port"])
                assert time.monotonic() < deadline, f"nobody follows the leader of {name}"

    @contextmanager
    def holding(self, n: str, task: str = "hold", **kwargs: Any) -> Iterator[AsyncResult]:
        """A run that holds the key for as long as the block lasts, and then ends well."""
        self.stay(n)
        begun = self.words(n).count("begin")
        result = self.task(task).delay(n, **kwargs)
        self.wait_for_word(n, "begin", times=begun + 1)
        try:
            yield result
        finally:
            self.go(n)
        result.get(timeout=PATIENCE)

    def close(self) -> None:
        # Results may outlive the server: they must not try to unsubscribe from it.
        self.app.backend.on_result_fulfilled = lambda _: None
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
