"""The journal: what happened, in the order in which one server heard of it.

It is a stream, so the server gives each entry its place and its time, whichever process on whichever host writes it.
From it one can see afterwards whether two bodies ever ran at once, and what became of each run that was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import redis
from celery import current_task
from celery.signals import after_task_publish

from celery_coord import signals
from example_project import settings

_STREAM = "monitor:journal"
#: How many entries are kept, about.
_LENGTH = 100_000
#: The fields of an entry that are numbers.
_NUMBERS = ("pid", "token", "commands", "found")


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened.

    Attributes:
        at: when, in seconds, by the server's clock.
        what: ``asked``, ``entered``, ``left``, ``dropped``, ``deferred`` or ``duplicate``, of a run; ``began`` and
            ``ended``, of a round of a component; ``elected``; and ``killing`` and ``killed``, which the demo writes
            before and after it kills a process.
        pid: of the process in which, or to which, it happened.
        task: its name, or that of the component, or of what was led.
        task_id: the run.
        cluster: what the run is about; empty where that is no cluster.
        token: of the lease, or of the term.
        detail: why a run was dropped or deferred, or how a body or a round ended: ``well`` or ``failed``.
        note: more about that, for people.
        commands: how many commands a body sent to nodes.
        found: how many replicas it found that the inventory does not list.
    """

    at: float
    what: str
    pid: int = 0
    task: str = ""
    task_id: str = ""
    cluster: str = ""
    token: int = 0
    detail: str = ""
    note: str = ""
    commands: int = 0
    found: int = 0

    @classmethod
    def of(cls, place: str, fields: dict[str, Any]) -> Self:
        """An entry of the stream; its place is the server's time in milliseconds, and a number."""
        numbers: dict[str, Any] = {name: int(fields[name]) for name in _NUMBERS if name in fields}
        return cls(at=int(place.partition("-")[0]) / 1000, **{**fields, **numbers})


class Journal:
    """Writes and reads the stream.

    Args:
        client: of the server that keeps it; answers with text.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def write(self, what: str, **fields: str | int) -> None:
        """Write one entry; the fields are those of `Entry`."""
        entry: dict[Any, Any] = {"pid": os.getpid(), **fields, "what": what}
        self._client.xadd(_STREAM, entry, maxlen=_LENGTH, approximate=True)

    def now(self) -> float:
        """The server's time, in seconds."""
        time: Any = self._client.time()
        seconds, microseconds = time
        return float(seconds + microseconds / 1_000_000)

    def read(self, after: str = "0") -> tuple[list[Entry], str]:
        """The entries after a place, in order, and the place of the last one."""
        found: Any = self._client.xrange(_STREAM, min=f"({after}")
        return [Entry.of(place, fields) for place, fields in found], found[-1][0] if found else after

    @contextmanager
    def body(self, cluster: str = "", token: int = 0) -> Iterator[dict[str, int]]:
        """Write that a body was entered, and how it was left.

        Args:
            cluster: what it is about.
            token: of the lease that it holds.

        Yields:
            More fields for the entry that says how it was left.
        """
        task, run = current_task.name, current_task.request.id
        with self._ends("entered", "left", task=task, task_id=run, cluster=cluster, token=token) as more:
            yield more

    @contextmanager
    def round(self, component: str, term: int) -> Iterator[dict[str, int]]:
        """Write that a round of a component began, and how it ended.

        Args:
            component: its name.
            term: in which its process was elected.

        Yields:
            More fields for the entry that says how it ended.
        """
        with self._ends("began", "ended", task=component, token=term) as more:
            yield more

    @contextmanager
    def _ends(self, first: str, last: str, **fields: str | int) -> Iterator[dict[str, int]]:
        self.write(first, **fields)
        more: dict[str, int] = {}
        try:
            yield more
        except BaseException:
            self.write(last, **fields, detail="failed")
            raise
        self.write(last, **fields, **more, detail="well")


journal = Journal(redis.Redis.from_url(settings.REDIS_URL, decode_responses=True))


@after_task_publish.connect
def _asked(sender: str, headers: dict[str, Any], body: Any, **_: Any) -> None:
    arguments = body[0]
    journal.write("asked", task=sender, task_id=headers["id"], cluster=arguments[0] if arguments else "")


@signals.task_dropped.connect
def _dropped(task: str, task_id: str, key: str, reason: str, **event: Any) -> None:
    left, who = event["left"], event["label"] or event["holder"][:8]
    until = "without an end" if left is None else f"{left:.1f} s left"
    note = f"{'by' if reason == 'held' else 'since the run of'} {who}, {until}"
    journal.write("dropped", task=task, task_id=task_id, cluster=_cluster(key), detail=reason, note=note)


@signals.task_deferred.connect
def _deferred(task: str, task_id: str, key: str, why: str, **_: Any) -> None:
    journal.write("deferred", task=task, task_id=task_id, cluster=_cluster(key), detail=why)


@signals.task_duplicate.connect
def _duplicate(task: str, task_id: str, key: str, **_: Any) -> None:
    journal.write("duplicate", task=task, task_id=task_id, cluster=_cluster(key))


@signals.leader_elected.connect
def _elected(name: str, term: int, **_: Any) -> None:
    journal.write("elected", task=name, token=term)


def _cluster(key: str) -> str:
    return key.removeprefix("cluster:")
