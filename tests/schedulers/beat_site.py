"""A place to test beats at, around any scheduler: what they sent, who led, and what the store remembers."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from beat_database import Database
from coord_site import Site
from local_processes import HERE, PATIENCE, CeleryProcess, wait_until

#: Where the store remembers the last runs.
RECORDS = "coord1-records:{coord:leader:beat}"
#: The lease of the leader.
LEASE = "lock:{coord:leader:beat}"

LEADER_SCHEDULER = "celery_coord.beat:LeaderScheduler"
DATABASE_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
#: It, and what is made of it.
DATABASE_SCHEDULERS = {
    "plain": DATABASE_SCHEDULER,
    "hanging": "users_database_schedulers:HangingDatabaseScheduler",
    "reading": "users_database_schedulers:ReadingDatabaseScheduler",
}
SCHEDULERS = {
    "persistent": "celery.beat:PersistentScheduler",
    "database": DATABASE_SCHEDULER,
    "redbeat": "redbeat.RedBeatScheduler",
    "users": "users_schedulers:DiaryScheduler",
}


@dataclass(frozen=True)
class Sent:
    """A message that a beat has sent: the instant of an entry for which it stands, and who sent it in which term."""

    entry: str
    due: float | None
    term: int
    pid: int
    headers: dict[str, Any]

    @classmethod
    def read(cls, message: str) -> Sent:
        headers = json.loads(message)["headers"]
        pid = int(headers["origin"].partition("@")[0].removeprefix("gen"))
        return cls(**headers["coord_beat"], pid=pid, headers=headers)


class BeatSite(Site):
    """A site without workers: what is sent stays in the queue, where it can be counted.

    Args:
        folder: where the processes run.
        scheduler: what the beats run while they lead.
        database: the schedule of a `DatabaseScheduler`.
        conf: settings.
    """

    def __init__(self, folder: Path, scheduler: str, database: Database | None = None, **conf: Any) -> None:
        super().__init__(folder, coord_beat_scheduler=scheduler, **{"beat_schedule": {}, **conf})
        self._database = database
        self._beats: list[CeleryProcess] = []

    @property
    def database(self) -> Database:
        assert self._database is not None
        return self._database

    @property
    def has_database(self) -> bool:
        """Whether the schedule is in one."""
        return self._database is not None

    def environment(self, database: Path | None = None) -> dict[str, str]:
        """What a process needs to find the project, and a database of its own or the site's."""
        told = os.environ.get("PYTHONPATH")
        here = {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), str(HERE), told]))}
        if not self.has_database:
            return here
        file = database or self.database.file
        return {**here, "DJANGO_SETTINGS_MODULE": "beat_django_settings", "PROJECT_DATABASE": str(file)}

    def start(self, folder: str = "", *, database: Path | None = None, **conf: Any) -> CeleryProcess:
        """Start a beat; it has not asked for the leadership yet."""
        started = self.beat(folder, project="beat_project", env=self.environment(database), **conf)
        self._beats.append(started)
        return started

    def start_embedded(self) -> CeleryProcess:
        """Start a worker with a beat inside; the worker leaves the queue alone."""
        embedded = ("-B", "--scheduler", LEADER_SCHEDULER, "-X", "celery")
        return self.worker("threads", *embedded, project="beat_project", env=self.environment())

    def leader(self) -> CeleryProcess:
        """The beat that leads: one that was here before, or a new one."""
        if not self._beats:
            self.succession(self.start)
        pid = self.elections()[-1]["pid"]
        [leader] = [beat for beat in self._beats if beat.pid == pid]
        return leader

    def lone_leader(self) -> CeleryProcess:
        """The same, with no follower left that could take over."""
        leader = self.leader()
        for beat in [beat for beat in self._beats if beat is not leader]:
            self.end(beat)
        return leader

    def follower(self, **conf: Any) -> CeleryProcess:
        """A beat that follows the leader: one that was here before, or a new one where settings are given."""
        leader = self.leader()
        for beat in self._beats:
            if beat is not leader and not conf:
                return beat
        follower = self.start(**conf)
        follower.wait_for("beat: following")
        return follower

    def end(self, beat: CeleryProcess, number: signal.Signals = signal.SIGTERM) -> None:
        """End a beat with a signal, and wait until it has ended."""
        beat.signal(number)
        beat.wait()
        self._beats.remove(beat)

    def end_all(self) -> None:
        """End what beats there are, the leader last."""
        while self._beats:
            leader = self.leader()
            self.end(next((beat for beat in self._beats if beat is not leader), leader))

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """Let the file of the database be away for as long as the block lasts; where there is none, nothing changes."""
        if not self.has_database:
            yield
            return
        away = self.database.file.rename(self.database.file.with_suffix(".away"))
        yield
        away.rename(self.database.file)

    def elections(self) -> list[dict[str, Any]]:
        return self.signals("leader_elected", name="beat")

    def succession(self, cause: Callable[[], object], *, timeout: float = PATIENCE) -> dict[str, Any]:
        """Do something that leads to an election; the signal of that election."""
        before = len(self.elections())
        cause()
        wait_until(lambda: len(self.elections()) > before, "another leader", timeout=timeout)
        return self.elections()[before]

    def sent(self, entry: str | None = None, *, term: int | None = None, pid: int | None = None) -> list[Sent]:
        """The messages in the queue, in order."""
        messages = [Sent.read(message) for message in reversed(self.client.lrange("celery", 0, -1))]
        return [
            sent
            for sent in messages
            if entry in (None, sent.entry) and term in (None, sent.term) and pid in (None, sent.pid)
        ]

    def wait_for_sends(self, more: int = 3, **which: Any) -> list[Sent]:
        """Until so many more such messages have been sent; all of these."""
        so_far = len(self.sent(**which))
        wait_until(lambda: len(self.sent(**which)) >= so_far + more, f"{more} more messages, {which}")
        return self.sent(**which)

    def last_run(self, entry: str) -> float:
        """When an entry was last run, as the store remembers it."""
        return float(self.client.hget(RECORDS, f"run:{entry}").split()[0])  # type: ignore[union-attr]

    def rewrite_last_run(self, entry: str, at: float) -> None:
        """Let the store remember another last run: a gap as long as one likes, without waiting for it."""
        self.client.hset(RECORDS, f"run:{entry}", f"{at:.6f} 1")


def at(when: float) -> datetime:
    """An instant in seconds since the epoch, as Django has it."""
    return datetime.fromtimestamp(when, UTC)


def assert_each_instant_once(messages: Iterable[Sent], *, every: float) -> None:
    """No instant of an entry twice, and none that its interval does not have: the terms are of one chain.

    In whatever order: what a leader had claimed as it was paused is sent by the next one, or by itself as it wakes.
    """
    dues = [sent.due for sent in messages]
    assert None not in dues
    steps = [later - earlier for earlier, later in itertools.pairwise(sorted(dues))]  # type: ignore[type-var, operator]
    assert all(step > every - 0.001 for step in steps), sorted(steps)[:3]


#: What makes a site: the fixtures `make_site` and `make_module_site`.
MakeSite = Callable[..., BeatSite]
