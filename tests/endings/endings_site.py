"""A place where runs end: a server, two brokers on it and beside it, and a worker for each way to end."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coord_project
import endings_project
import psutil
import pytest
import redis
from celery import Celery, states
from celery.result import AsyncResult
from coord_site import Site, fresh_n
from endings_table import Cell, Free, Kind, Outcome
from local_processes import CeleryProcess, wait_until
from results_seen import miss_no_result

from celery_coord.testing import LocalServer

HERE = Path(__file__).parent
#: Where the promise is one second; the lease lasts thirty.
SOON = 15.0
#: How long we wait for who says that he has ended a lease: where somebody should, and where nobody should.
TELLS, TELLS_NOT = 10.0, 1.5
#: A Redis that delivers again soon what a worker took and did not acknowledge. A worker that is killed while it looks
#: for such messages leaves its mutex behind.
RESTORES_SOON = {
    "visibility_timeout": 2,
    "unacked_restore_interval": 1,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 2,
}
#: What says that a worker tries no more: it tries ten times a second.
SILENCE = 1.5
#: What a worker says that has lost its broker.
LOST = "Connection to broker lost"
#: What a bounded wait may last that is not about a promise: a worker's shutdown, a deferred message.
LONG_WAIT = 30.0

_numbers = itertools.count(1)


@dataclass
class Worker:
    """A worker on a queue of its own."""

    process: CeleryProcess
    name: str
    queue: str
    kind: Kind
    results: LocalServer | None

    def is_alive(self) -> bool:
        return self.process._process.poll() is None

    def wait_for_silence(self) -> None:
        """Until it has had nothing to say for a while."""
        said, since = "", time.monotonic()

        def is_silent() -> bool:
            nonlocal said, since
            if self.process.output != said:
                said, since = self.process.output, time.monotonic()
            return time.monotonic() > since + SILENCE

        wait_until(is_silent, "it has no more to say")

    def end(self) -> None:
        if self.is_alive():
            self.process.signal(signal.SIGKILL)
        self.process.end()


@dataclass
class Run:
    """One run that will end."""

    n: str
    worker: Worker
    app: Celery
    id: str
    brief: bool = False
    begun: dict[str, Any] = field(default_factory=dict)
    caused_at: float = 0.0

    @property
    def result(self) -> AsyncResult:
        return AsyncResult(self.id, app=self.app)


class EndingsSite(Site):
    """The server keeps leases, results and stories in one database, and is a broker in two others.

    Args:
        folder: where the processes run.
        rabbit: starts a RabbitMQ, or says where it is.
    """

    def __init__(self, folder: Path, rabbit: Callable[[], Any]) -> None:
        super().__init__(folder, coord_store_timeout=10)  # a store on a busy machine may take its time
        self.rabbit = rabbit
        #: The workers that tests will take, in order: the next one starts while the one before is at work.
        self.plan: list[Kind] = []
        self._spares: list[Worker] = []
        self._shared: dict[Kind, Worker] = {}
        self._apps: dict[str, Celery] = {}

    def database(self, number: int) -> str:
        return f"redis://127.0.0.1:{self.server.port}/{number}"

    def broker_conf(self, kind: Kind) -> dict[str, Any]:
        if kind.broker == "rabbitmq":
            return {"broker_url": self.rabbit().url}
        if kind.redelivers:
            return {"broker_url": self.database(2), "broker_transport_options": RESTORES_SOON}
        return {"broker_url": self.database(1)}

    def app_for(self, worker: Worker) -> Celery:
        conf = {**self.conf, **self.broker_conf(worker.kind)}
        if worker.results:
            conf |= {"result_backend": worker.results.url, "coord_url": self.server.url}
        where = f"{conf['broker_url']} {conf['result_backend']}"
        if where not in self._apps:
            made = self._stack.enter_context(coord_project.make_app(**conf))
            miss_no_result(made)
            made.backend.on_result_fulfilled = lambda _: None  # results may outlive their server
            self._apps[where] = made
        return self._apps[where]

    def take(self, kind: Kind, *, results: LocalServer | None = None) -> Worker:
        """A ready worker of a kind, for one test; the next one in the plan is started meanwhile."""
        if kind in self.plan:
            self.plan.remove(kind)
        taken = None if results else next((spare for spare in self._spares if spare.kind == kind), None)
        if taken:
            self._spares.remove(taken)
        else:
            taken = self._start(kind, results)
        taken.process.wait_for(" ready.", timeout=LONG_WAIT)
        if self.plan and not self._spares and self.plan[0].broker == kind.broker:  # another one may be missing here
            self._spares.append(self._start(self.plan[0], None))
        return taken

    def shared(self, kind: Kind) -> Worker:
        """The worker of a kind that outlives the tests."""
        if kind not in self._shared:
            for other in self._shared.values():
                other.end()
            self._shared = {kind: self.take(kind)}
        return self._shared[kind]

    def _start(self, kind: Kind, results: LocalServer | None, queue: str = "") -> Worker:
        name = f"ending-{next(_numbers)}@here"
        queue = queue or name.partition("@")[0]
        conf = {**self.broker_conf(kind), **dict(kind.conf)}
        if results:
            patience = {"retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0.1, "timeout": 1}}
            conf |= {
                "result_backend": results.url,
                "coord_url": self.server.url,
                "result_backend_transport_options": patience,
            }
        importable = os.pathsep.join([str(HERE), str(Path(coord_project.__file__).parent)])
        options = ("-n", name, "-Q", queue, "-c", "2")
        process = self.worker(kind.pool, *options, project="endings_project", env={"PYTHONPATH": importable}, **conf)
        return Worker(process, name, queue, kind, results)

    @contextmanager
    def worker_for(self, cell: Cell, *, results: LocalServer | None = None) -> Iterator[Worker]:
        if not cell.ending.own_worker:
            yield self.shared(cell.kind)
            return
        worker = self.take(cell.kind, results=results)
        try:
            self.probe(worker)  # it says that it is ready before it is in its loop
            yield worker
        finally:
            worker.end()

    def go(self, *keys: str) -> None:
        super().go(*keys)
        for n in keys:
            self.client.rpush(f"gone:{n}", 1)

    def let_go(self, run: Run) -> None:
        """The body ends now."""
        run.caused_at = time.monotonic()
        self.go(run.n)

    def owner(self, n: str) -> str | None:
        """Who held the lease of the first body."""
        acquired = self.signals("lease_acquired", key=f"n:{n}")
        return acquired[0]["owner"] if acquired else None

    def send(self, worker: Worker, task: str, act: str, *, n: str = "", task_id: str | None = None, **more: Any) -> Run:
        n, app = n or fresh_n(), self.app_for(worker)
        sent = app.tasks[task].apply_async((n, act), queue=worker.queue, task_id=task_id, **more)
        return Run(n, worker, app, sent.id, brief=task.startswith("brief"))

    def succeed(self, worker: Worker, kind: Kind | None = None, *, wait: bool = True) -> Worker:
        """Another worker on the same queue; a ready one, if it is waited for."""
        successor = self._start(kind or worker.kind, None, worker.queue)
        if wait:
            successor.process.wait_for(" ready.", timeout=LONG_WAIT)
        return successor

    def cut_off(self, worker: Worker, *, wait: bool = True) -> None:
        """Every connection of a worker's to its broker ends, from the broker's side.

        Args:
            worker: whose.
            wait: until it has found that out.
        """
        before = worker.process.output.count(LOST)
        ports = {made.laddr.port for made in psutil.Process(worker.process.pid).net_connections()}
        if worker.kind.broker == "rabbitmq":
            self.rabbit().close_connections(ports)
        else:
            for connected in self.client.client_list():
                if connected["db"] != "0" and int(connected["addr"].rpartition(":")[2]) in ports:
                    self.client.client_kill_filter(_id=connected["id"])
        if wait:
            wait_until(lambda: worker.process.output.count(LOST) > before, "the worker finds its broker away")

    def is_acknowledged(self, run: Run) -> bool:
        """Whether the message of a run that is at work is no longer its broker's, as its worker has it."""
        name = run.worker.name
        active = run.app.control.inspect([name], timeout=2, limit=1).active() or {}
        return any(one["id"] == run.id and one["acknowledged"] for one in active.get(name, []))

    def probe(self, worker: Worker) -> None:
        """A run of another key, behind everything that the worker still has to do."""
        other = self.send(worker, "early", "succeed")
        self.go(other.n)
        self.wait_for_word(other.n, "end", timeout=LONG_WAIT)

    @contextmanager
    def recording_here(self, patched: pytest.MonkeyPatch) -> Iterator[None]:
        """Let bodies tell their story from this very process."""
        patched.setenv(coord_project.URL, self.server.url)
        coord_project.recorder.cache_clear()
        try:
            yield
        finally:
            coord_project.recorder().close()
            coord_project.recorder.cache_clear()

    def when_free(self, run: Run) -> Free:
        """Watch the key of the run until it is free, together with what waiters see."""
        name, results = self.lock_name(run.n), run.app.backend
        told_first = False
        deadline = run.caused_at + SOON
        with redis.Redis.from_url(self.server.url, decode_responses=True) as client:
            owner = self.owner(run.n)
            if owner is None:
                return Free.UNTAKEN
            while True:
                with client.pipeline(transaction=True) as both:
                    meta, value = both.get(results.get_key_for_task(run.id).decode()).get(name).execute()
                if value != owner:
                    break
                told_first = told_first or bool(meta and results.decode(meta)["status"] in states.READY_STATES)
                if time.monotonic() > deadline:
                    return Free.NEVER
                time.sleep(0.01)
        by = self._who_ended(run.n, owner, within=TELLS_NOT if run.brief else TELLS)
        if by is None:
            return Free.TTL if run.brief else Free.SOON
        return Free.WITH_BODY if by == run.begun["pid"] and not told_first else Free.SOON

    def _who_ended(self, n: str, owner: str, *, within: float) -> int | None:
        """The process that ended a lease, or that had its next generation sent; None: it ended by itself."""

        def find() -> list[int]:
            ended = self.signals("lease_released", owner=owner) + self.signals("lease_abandoned", owner=owner)
            return [signal["pid"] for signal in ended] or self._handed_over(n, owner)

        try:
            return wait_until(find, "who ended the lease", timeout=within)[0]
        except AssertionError:
            return None

    def _handed_over(self, n: str, owner: str) -> list[int]:
        """The process whose run handed its key to a later generation of itself; 0 if that process is no more."""
        first, (run, generation, _) = self.story(n)[0]["pid"], owner.split("/")
        later = [signal["owner"].split("/") for signal in self.signals("lease_acquired", key=f"n:{n}")]
        return [first if lives(first) else 0 for other, its, _ in later if other == run and int(its) > int(generation)]

    def close(self) -> None:
        for worker in (*self._spares, *self._shared.values()):
            worker.end()
        super().close()


def observed(site: EndingsSite, cell: Cell, run: Run, free: Free) -> Outcome:
    """What has become of the run, once it has had the time that it needs."""
    expected = cell.outcome

    def has_ended() -> bool:
        return site.words(run.n).count("begin") >= expected.bodies and run.result.state == expected.state

    deadline = time.monotonic() + LONG_WAIT
    while not has_ended() and time.monotonic() < deadline:
        time.sleep(0.02)
    if cell.ending.stops_worker and not cell.ending.successor:
        run.worker.process.wait()
    elif run.worker.is_alive() or cell.ending.successor:
        site.probe(run.worker)
    told = type(run.result.result).__name__ if run.result.state in states.PROPAGATE_STATES else ""
    if free is Free.WITH_BODY and expected.free is Free.SOON:
        free = Free.SOON  # sooner than it had to be
    return Outcome(free, run.result.state, told, site.words(run.n).count("begin"))


def lives(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


assert endings_project.ACTS, "the tasks are declared with the module"
