"""What the journal says so far, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from example_project.journal import Entry


@dataclass(slots=True)
class Count:
    """What became of the runs of one task on one cluster."""

    asked: int = 0
    ran: int = 0
    failed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


class Tally:
    """Reads entries as they come.

    Attributes:
        entries: all of them, in order.
        counts: by task and cluster.
        leaders: the process that was elected last, by what it leads.
        rounds: how many there were, by component, process and term.
        commands: how many commands bodies that ended well sent to nodes.
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.counts: dict[tuple[str, str], Count] = {}
        self.leaders: dict[str, int] = {}
        self.rounds: Counter[tuple[str, int, int]] = Counter()
        self.commands = 0
        self._asked: set[str] = set()
        self._running: dict[str, Entry] = {}

    def add(self, entries: Iterable[Entry]) -> None:
        """Take in more entries."""
        for entry in entries:
            self.entries.append(entry)
            self._count(entry)

    def of(self, task: str, cluster: str | None = None) -> Count:
        """The count of a task, on one cluster or on all."""
        total = Count()
        for (name, where), count in self.counts.items():
            if name == task and cluster in (None, where):
                total.asked += count.asked
                total.ran += count.ran
                total.failed += count.failed
                total.dropped += count.dropped
        return total

    def running(self, task: str) -> list[Entry]:
        """The bodies of a task that were entered and have not left, the newest last."""
        return [entry for entry in self._running.values() if entry.task == task]

    @property
    def asked(self) -> frozenset[str]:
        """The runs that were asked for, each once, however often its message was sent."""
        return frozenset(self._asked)

    def _count(self, entry: Entry) -> None:
        count = self.counts.setdefault((entry.task, entry.cluster), Count())
        match entry.what:
            case "asked" if entry.task_id not in self._asked:
                self._asked.add(entry.task_id)
                count.asked += 1
            case "entered":
                self._running[entry.task_id] = entry
            case "left":
                self._running.pop(entry.task_id, None)
                count.ran += entry.detail == "well"
                count.failed += entry.detail != "well"
                self.commands += entry.commands
            case "dropped":
                count.dropped[entry.detail] += 1
            case "elected":
                self.leaders[entry.task] = entry.pid
            case "ended":
                self.rounds[entry.task, entry.pid, entry.token] += 1
            case "killed":
                self._running = {run: body for run, body in self._running.items() if body.pid != entry.pid}
