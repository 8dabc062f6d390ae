"""``python -m tests.processes.endurance``: many runs, and what has grown meanwhile.

Half of them go through the gate in one process, in threads; the others through real workers of each pool. They end
well, fail, are retried, refused and cooled, and now and then the store stalls, or crashes and comes back empty.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import redis
from celery import states
from celery.result import EagerResult

from celery_coord import StoreError
from celery_coord.app import coordination
from tests.integration.local_processes import wait_until
from tests.processes.census import HEAD, Sample, objections, sample, shown
from tests.processes.connections import processes_of
from tests.processes.project import left_in, make_app
from tests.processes.works import Works

#: What is asked of the workers of a pool: how many runs they have at once.
POOLS = {"prefork": 2, "threads": 8, "gevent": 20, "solo": 1}
#: How many threads of one process go through the gate.
THREADS = 4
#: So many different arguments there are, and so keys that stay.
ARGUMENTS = 1000
#: How many runs meet each outage, everywhere.
IN_AN_OUTAGE = 8
#: How long a stall or a crash lasts, in seconds.
OUTAGE = 0.5
PATIENCE = 300.0

SETTINGS = {
    "coord_store_timeout": 1.0,  # an outage lasts until some runs have met it, and a busy machine is none
    "coord_done_ttl": 5,  # else each run is remembered for more than an hour
    "broker_transport_options": {"max_connections": max(POOLS.values()) + 5},  # as a worker of greenlets is told to
    "task_ignore_result": True,
    "worker_prefetch_multiplier": 4,
    "worker_redirect_stdouts": False,
}


class Endurance:
    """A run of it, in rounds: in each the store may go away, and what is at work meanwhile comes to rest at its end.

    Args:
        works: where.
        tasks: how many runs go through the gate, and how many through the workers of all pools together.
        rounds: how many rounds that takes.
    """

    def __init__(self, works: Works, tasks: int, rounds: int) -> None:
        self._works = works
        self._tasks = tasks
        self._rounds = rounds
        self._threads = ThreadPoolExecutor(THREADS)
        #: For what is not to fail where the store, which has just come back, takes its time.
        self._patient = make_app(**{**works.conf, "coord_store_timeout": 30.0})
        self.samples: dict[str, list[Sample]] = {place: [] for place in ("gate", *POOLS)}
        self.ends: Counter[str] = Counter()
        self.messages = 0
        self.objections: list[str] = []

    def go(self) -> None:
        for pool, number in POOLS.items():
            self._works.start(pool, pool, "-c", str(number), "-l", "ERROR")
        for pool in POOLS:
            self._census(pool)
        with self._threads:
            for number in range(self._rounds):
                self._round(number)
        self.messages = sum(self._messages(pool) for pool in POOLS)
        if self.messages < self._tasks:
            self.objections.append(f"the workers had {self.messages:,} messages instead of {self._tasks:,}")
        for place, samples in self.samples.items():
            self.objections += objections(place, samples)
        self.objections += self._keys_without_an_end()

    def _round(self, number: int) -> None:
        runs = part(self._tasks, number, self._rounds)
        for_a_worker = part(self._tasks // len(POOLS), number, self._rounds)
        with self._outage(number):
            for pool in POOLS:
                self._publish(pool, for_a_worker[:IN_AN_OUTAGE])
            self._run_all(runs[:IN_AN_OUTAGE])
        with self._patient.tasks["mixed"].lock(2):
            for pool in POOLS:
                self._publish(pool, for_a_worker[IN_AN_OUTAGE:])
            self._run_all(runs[IN_AN_OUTAGE:])
            self._wait_for_rest()
        self._sample("gate", [os.getpid()], runs.stop, lambda: left_in(coordination(self._works.app)))
        for pool in POOLS:
            pids = processes_of(self._works.workers[pool].pid)
            self._sample(pool, pids, for_a_worker.stop, lambda pool=pool: self._census(pool))

    def _run_all(self, numbers: range) -> None:
        """Run them here, in threads; a future for each would be what takes the memory."""
        for ends in self._threads.map(self._run, [numbers[first::THREADS] for first in range(THREADS)]):
            self.ends += ends

    def _run(self, numbers: range) -> Counter[str]:
        ends = Counter[str]()
        for number in numbers:
            task, argument = what(number)
            ends[end_of(self._works.app.tasks[task].apply((argument,)))] += 1
        return ends

    def _publish(self, pool: str, numbers: range) -> None:
        with self._works.app.producer_or_acquire() as producer:
            for number in numbers:
                task, argument = what(number)
                self._works.app.tasks[task].apply_async((argument,), queue=pool, producer=producer)

    def _wait_for_rest(self) -> None:
        """Until the broker has nothing left, also not what a worker keeps for later."""
        with redis.Redis.from_url(self._works.broker.url) as client:
            wait_until(
                lambda: not any(map(client.llen, POOLS)) and not client.hlen("unacked"), "rest", timeout=PATIENCE
            )

    def _census(self, pool: str) -> dict[str, int]:
        found = self._works.app.tasks["census"].apply_async(queue=pool)
        return found.get(timeout=PATIENCE)  # type: ignore[no-any-return]

    def _messages(self, pool: str) -> int:
        """How many messages of ours a worker has had."""
        told = self._works.app.control.inspect([f"{pool}@{socket.gethostname()}"], timeout=10, limit=1).stats() or {}
        return sum(said["total"].get(task, 0) for said in told.values() for task in ("mixed", "costly"))

    def _sample(self, place: str, pids: list[int], runs: int, look: Callable[[], dict[str, int]]) -> None:
        left = when_done(look)
        servers = {"store": self._works.store, "broker": self._works.broker, "results": self._works.results}
        self.samples[place].append(sample(pids, servers, runs=runs, objects=left["objects"]))
        if left["held"] or left["later"]:
            self.objections.append(f"{place}: the keeper still has {left} after {runs:,} runs")

    @contextmanager
    def _outage(self, number: int) -> Iterator[None]:
        """The store stalls in some rounds, and crashes in others."""
        store = self._works.store
        match number % 4:
            case 1:
                os.kill(store.pid or 0, signal.SIGSTOP)
                yield
                time.sleep(OUTAGE)
                os.kill(store.pid or 0, signal.SIGCONT)
            case 2:
                store.kill()
                yield
                time.sleep(OUTAGE)
                store.start()
            case _:
                yield

    def _keys_without_an_end(self) -> list[str]:
        with redis.Redis.from_url(self._works.store.url, decode_responses=True) as client:
            endless = [key for key in client.scan_iter(count=1000) if client.ttl(key) == -1]
        return [f"{len(endless)} keys have no ttl, such as {endless[0]}"] if endless else []


def part(runs: int, number: int, of: int) -> range:
    """The runs of one round."""
    return range(runs * number // of, runs * (number + 1) // of)


def what(number: int) -> tuple[str, int]:
    """The task of a run, and its argument."""
    argument = number % ARGUMENTS
    return ("costly" if argument % 10 == 3 else "mixed"), argument


def end_of(result: EagerResult) -> str:
    """How a run ended here, in words."""
    if result.state == states.REVOKED:
        return str(result.result.reason)
    if result.state == states.FAILURE:
        return "no store" if isinstance(result.result, StoreError) else "failed"
    return "well"


def when_done(look: Callable[[], dict[str, int]]) -> dict[str, int]:
    """What is left when the last bodies have ended, and the keeper has done what outages left for later, or in vain."""
    deadline = time.monotonic() + 30
    while (left := look())["later"] or left["held"]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.2)
    return left


def report(endurance: Endurance, heading: str) -> str:
    lines = [heading, "", HEAD]
    for place, samples in endurance.samples.items():
        lines += [known.line(place) for known in shown(samples)]
    ends = ", ".join(f"{number:,} {end}" for end, number in sorted(endurance.ends.items()))
    return "\n".join([*lines, "", f"through the gate: {ends}", f"through the workers: {endurance.messages:,} messages"])


def main() -> int:
    """0: nothing has grown; 1: something has."""
    parser = argparse.ArgumentParser(prog="python -m tests.processes.endurance", description=__doc__)
    parser.add_argument("--tasks", type=int, default=2000, help="how many runs of each kind (2000)")
    parser.add_argument("--rounds", type=int, default=10, help="in how many rounds (10)")
    parser.add_argument("--save", type=Path, help="write what is printed into this file, if all is well")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is to end as well
    logging.getLogger("celery_coord").setLevel(logging.CRITICAL)  # outages are meant
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder, Works(Path(folder), **SETTINGS) as works:
        endurance = Endurance(works, arguments.tasks, arguments.rounds)
        endurance.go()
    minutes = (time.monotonic() - began) / 60
    said = report(endurance, f"{arguments.tasks:,} runs of each kind, {minutes:.0f} min on {os.cpu_count()} cores")
    print(said)
    print(*endurance.objections, sep="\n")
    if endurance.objections:
        return 1
    if arguments.save:
        arguments.save.write_text(f"{said}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
