"""Schedulers that a user might have written: they run in the folder of their beat, and leave traces there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from celery.beat import ScheduleEntry, Scheduler

#: Where a scheduler writes what it does.
DIARY = "diary.txt"
#: While this file exists in the folder of a beat, its scheduler hangs, or fails; and the file that tells that it hangs.
TROUBLE, TROUBLED = "trouble", "troubled"


class DiaryEntry(ScheduleEntry):
    """An entry of a class of its own."""


class DiaryScheduler(Scheduler):
    """Writes into a file whenever it loads, reserves, synchronizes or closes."""

    Entry = DiaryEntry

    def setup_schedule(self) -> None:
        self.write("load")
        super().setup_schedule()

    def reserve(self, entry: Any) -> Any:
        self.write(f"reserve {entry.name}")
        return super().reserve(entry)

    def sync(self) -> None:
        self.write("sync")

    def close(self) -> None:
        super().close()
        self.write("close")

    def write(self, line: str) -> None:
        with Path(DIARY).open("a") as diary:
            print(line, file=diary)


class FailingScheduler(Scheduler):
    """Its step raises as long as there is trouble."""

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        if Path(TROUBLE).exists():
            raise OSError("the schedule cannot be read")
        return super().tick(*args, **kwargs)
