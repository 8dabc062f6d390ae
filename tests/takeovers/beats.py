"""Beats as processes, each in its seat: one that has ended is followed by another that finds what it left behind."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from tests.integration.local_processes import PATIENCE, CeleryProcess, wait_until
from tests.takeovers import project
from tests.takeovers.history import Elected

_LEADER = ("-S", "celery_coord.beat:LeaderScheduler")
_ROOT = Path(__file__).resolve().parents[2]


class Beats:
    """So many beats of the project, from `start` on.

    Args:
        folder: where they run, and where their schedule files and what they told are kept.
        url: the server.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._told = folder / "told.jsonl"
        self._environment = {project.URL: url, project.TOLD: str(self._told), "PYTHONPATH": str(_ROOT)}
        self._stack = ExitStack()
        self._seats: dict[int, CeleryProcess] = {}
        self._started = 0

    def start(self, seat: int, *, afresh: bool = False) -> CeleryProcess:
        """Start a beat, and wait until it leads or has met the one who does.

        Args:
            seat: its place: it finds the schedule file of the last one there.
            afresh: without that file, as on a new machine.
        """
        schedule = self._folder / f"schedule-{seat}"
        if afresh:
            for file in self._folder.glob(f"{schedule.name}*"):
                file.unlink()
        self._started += 1
        beat = CeleryProcess(
            self._folder / f"beat-{self._started}",
            ["-A", project.__name__, "beat", "-l", "INFO", "--pidfile=", "--schedule", str(schedule), *_LEADER],
            self._environment,
        )
        self._stack.callback(beat.end)
        self._seats[seat] = beat
        wait_until(lambda: self._has_begun(beat.pid), f"beat {self._started} campaigns")
        return beat

    def seat_of(self, pid: int) -> int:
        return next(seat for seat, beat in self._seats.items() if beat.pid == pid)

    def of(self, pid: int) -> CeleryProcess:
        return self._seats[self.seat_of(pid)]

    def told(self) -> list[dict[str, Any]]:
        """The signals of leadership so far, in the order in which they were written down."""
        if not self._told.exists():
            return []
        lines = self._told.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be on its way

    def elected(self) -> list[Elected]:
        """Who has told that it leads, in the order of time."""
        told = [signal for signal in self.told() if signal["signal"] == "leader_elected"]
        return sorted((Elected(one["at"], one["term"], one["pid"]) for one in told), key=lambda one: one.at)

    def leader(self, *, after: int = 0, timeout: float = PATIENCE) -> Elected:
        """The one who was elected last, in a term after this one; waits until there is one."""

        def newest() -> Elected | None:
            return max((one for one in self.elected() if one.term > after), key=lambda one: one.term, default=None)

        found = wait_until(newest, f"a leader after term {after}", timeout=timeout)
        assert found is not None
        return found

    def end(self) -> None:
        """Ask them to end, the leader last: nobody takes over any more."""
        leader = self.leader().pid
        for beat in sorted(self._seats.values(), key=lambda beat: beat.pid == leader):
            beat.signal(signal.SIGTERM)
            beat.wait()

    def _has_begun(self, pid: int) -> bool:
        return any(one["pid"] == pid for one in self.told())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
