"""What processes have at one instant, and whether that has grown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from celery_coord.testing import LocalServer
from tests.processes.connections import files_of

MEBIBYTE = 1024 * 1024
#: How much more memory a process may have at the end than when half of its runs had ended, in MiB: what loses a hundred
#: bytes with each of 50,000 runs loses more.
GROWTH = 4.0
#: It is judged where so many runs came before: until then a process fills its caches.
WARM = 1000
#: Threads, and files of each kind, come and go by as many as happen to be at work: what loses one with every thousandth
#: run loses more.
SPARE = 10
#: Connections to the broker are Celery's: two for each that it keeps for publishing (`broker_pool_limit`, 10). How soon
#: it needs the most is chance.
SPARE_OF_BROKER = 2 * 10
#: And as many as greenlets acknowledge with at once (`max_connections`).
SPARE_OF_GREENLETS = 25

#: The kinds of open files that a table shows each by itself.
SHOWN = ("store", "broker", "results", "polls")
HEAD = (
    f"{'':<9}{'runs':>8}{'processes':>11}{'threads':>9}{'files:':>8}"
    f"{'store':>7}{'broker':>8}{'results':>9}{'polls':>7}{'rest':>6}{'MiB':>8}{'objects':>9}"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processes of one place have between two runs.

    Attributes:
        runs: how many have ended.
        processes: how many there are.
        threads: of all of them.
        files: descriptors, sockets among them.
        kinds: so many of them are connections to the store, so many pipes, and so on.
        memory: what they have of it, in MiB; what they share is counted for each.
        objects: those that Python's collector knows, in one process.
    """

    runs: int
    processes: int
    threads: int
    files: int
    kinds: Mapping[str, int]
    memory: float
    objects: int

    def line(self, place: str) -> str:
        store, broker, results, polls = (self.kinds.get(kind, 0) for kind in SHOWN)
        rest = self.files - (store + broker + results + polls)
        return (
            f"{place:<9}{self.runs:>8,}{self.processes:>11}{self.threads:>9}{self.files:>8}"
            f"{store:>7}{broker:>8}{results:>9}{polls:>7}{rest:>6}{self.memory:>8.1f}{self.objects:>9,}"
        )

    def counts(self) -> Counter[str]:
        """All that comes and goes by as much as is at work, by what it is called."""
        return Counter({"processes": self.processes, "threads": self.threads, **self.kinds})


def sample(pids: Sequence[int], servers: Mapping[str, LocalServer], *, runs: int, objects: int) -> Sample:
    """What these processes have now, and how many connections to each of these servers."""
    threads = files = memory = 0
    kinds = Counter[str]()
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            threads += process.num_threads()
            files += process.num_fds()
            kinds += files_of(pid, servers)
            memory += process.memory_info().rss
    return Sample(runs, len(pids), threads, files, dict(kinds), memory / MEBIBYTE, objects)


def objections(place: str, samples: Sequence[Sample]) -> list[str]:
    """What has grown over the last half of the runs."""
    middle = len(samples) // 2
    first, last, end = samples[: middle + 1], samples[middle + 1 :], samples[-1]
    of_broker = SPARE_OF_BROKER + (SPARE_OF_GREENLETS if place == "gevent" else 0)
    found = []
    for what in sorted({what for known in samples for what in known.counts()}):
        before, after = (max(known.counts()[what] for known in half) for half in (first, last))
        if after > before + (of_broker if what == "broker" else SPARE):
            found.append(f"{place}: of {what} there were {before} at most, and then {after}, after {end.runs:,} runs")
    growth = end.memory - samples[middle].memory
    if samples[middle].runs > WARM and growth > GROWTH * end.processes:
        found.append(f"{place}: memory grew by {growth:.1f} MiB over the last {end.runs - samples[middle].runs:,} runs")
    return found


def shown(samples: Sequence[Sample]) -> Iterable[Sample]:
    """Those that a table shows: the first, the half, the end, and two between them."""
    last = len(samples) - 1
    return [samples[index] for index in sorted({0, last // 4, last // 2, last * 3 // 4, last})]
