"""The stage: everything that runs in the demo, started in order, and ended without a trace.

One server is broker, result backend, store of leases and state. The fleet is three primaries and two replicas, one of
which the inventory does not list. Two workers with two processes each, two beats, and the API.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import redis

from celery_coord.testing import LocalServer
from example_project.demo.processes import Program

#: What the demo sets, so that three crashes fit into a minute.
QUIET_SECONDS = 3.0
LEASE_SECONDS = 5.0
LEADER_SECONDS = 3.0
DISCOVER_SECONDS = 1.0
SAMPLES = 5
SAMPLE_SECONDS = 0.3

WORKERS = ("worker-1", "worker-2")
BEATS = ("beat-1", "beat-2")

_CELERY = ("celery", "-A", "example_project.app")
_REPLICA_OPTIONS = ("--repl-diskless-sync-delay", "0", "--loglevel", "warning")


class Stage:
    """A context: on leaving it nothing is left of what was started.

    Attributes:
        server: broker, results, leases and state.
        stray: the replica that the inventory does not list.
        programs: by name.
        primaries: clients of the nodes that take writes.
        clusters: their names.
    """

    server: LocalServer
    stray: LocalServer

    def __init__(self) -> None:
        self.programs: dict[str, Program] = {}
        self.primaries: list[redis.Redis] = []
        self.clusters = ("orders", "billing", "sessions")
        self._held = ExitStack()
        self._folder = Path()

    def __enter__(self) -> Self:
        with ExitStack() as held:
            self._folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="monitor-demo-")))
            self._start_servers(held)
            held.callback(self._end_programs)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    @property
    def url(self) -> str:
        """Of the server."""
        return self.server.url

    def client(self, url: str) -> redis.Redis:
        """A client that is closed with the stage."""
        client = redis.Redis.from_url(url, decode_responses=True)
        self._held.callback(client.close)
        return client

    def start_monitor(self) -> None:
        """Start the workers and the beats; they take a moment."""
        for name in WORKERS:
            self._start(
                name, *_CELERY, "worker", "--concurrency", "2", "--hostname", f"{name}@%h", "--loglevel", "INFO"
            )
        for name in BEATS:
            self._start(name, *_CELERY, "beat", "-S", "celery_coord.beat:LeaderScheduler", "--loglevel", "INFO")

    def start_api(self) -> None:
        """Start the flood."""
        self._start("api", "example_project.api")

    def stop(self, *names: str) -> None:
        """End some of the programs, in order."""
        for name in names:
            self.programs[name].ask_to_end()
        for name in names:
            self.programs[name].see_it_end()

    def name_of(self, pid: int) -> str:
        """What a process is called here."""
        return next((name for name, program in self.programs.items() if program.pid == pid), f"pid {pid}")

    def logs(self) -> str:
        """The end of each log."""
        return "\n".join(program.tail() for program in self.programs.values())

    def _start_servers(self, held: ExitStack) -> None:
        self.server = held.enter_context(LocalServer(_REPLICA_OPTIONS))
        orders, billing, sessions = (held.enter_context(LocalServer(_REPLICA_OPTIONS)) for _ in self.clusters)
        follow = ("--replicaof", "127.0.0.1", str(orders.port), *_REPLICA_OPTIONS)
        replica = held.enter_context(LocalServer(follow))
        self.stray = held.enter_context(LocalServer(follow))
        self.primaries = [held.enter_context(redis.Redis(port=node.port)) for node in (orders, billing, sessions)]
        self._write_inventory({"orders": (orders, replica), "billing": (billing,), "sessions": (sessions,)})

    def _write_inventory(self, clusters: dict[str, tuple[LocalServer, ...]]) -> None:
        lines = [
            f"[clusters.{name}]\nnodes = {[f'127.0.0.1:{node.port}' for node in nodes]}\n"
            for name, nodes in clusters.items()
        ]
        (self._folder / "inventory.toml").write_text("\n".join(lines), encoding="utf-8")

    def _start(self, name: str, *arguments: str) -> None:
        self.programs[name] = Program(name, arguments, self._environment(name), self._folder)

    def _environment(self, name: str) -> dict[str, str]:
        return {
            **os.environ,
            "TMPDIR": str(self._folder),  # what a killed process leaves goes with the folder
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))),
            "MONITOR_REDIS_URL": self.url,
            "MONITOR_INVENTORY": str(self._folder / "inventory.toml"),
            "MONITOR_SCHEDULE_FILE": str(self._folder / f"{name}.schedule"),
            "MONITOR_QUIET_SECONDS": str(QUIET_SECONDS),
            "MONITOR_LEASE_SECONDS": str(LEASE_SECONDS),
            "MONITOR_LEADER_SECONDS": str(LEADER_SECONDS),
            "MONITOR_DISCOVER_SECONDS": str(DISCOVER_SECONDS),
            "MONITOR_SAMPLES": str(SAMPLES),
            "MONITOR_SAMPLE_SECONDS": str(SAMPLE_SECONDS),
        }

    def _end_programs(self) -> None:
        self.stop(*self.programs)
