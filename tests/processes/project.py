"""The application of these tests, for workers (``celery -A tests.processes.project``) and for processes that fork.

A body writes into a file what its process is, and needs no server but the store for that.
"""

from __future__ import annotations

import gc
import json
import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task, current_app

from celery_coord import Exclusive, ExclusiveTask, current_lease
from celery_coord.app import Coordination, coordination

#: The settings of the application, as JSON; set by the test that starts this process.
CONF = "PROCESSES_CONF"
#: The folder in which bodies find the word to go on, and leave theirs.
FOLDER = "PROCESSES_FOLDER"
#: So many bytes are more than ``worker_max_memory_per_child`` lets a child keep.
HOARD = 128 * 1024 * 1024
#: No longer than this does a body wait for that word, in seconds.
PATIENCE = 60.0


class Project(Celery):  # type: ignore[misc]  # Celery has no types
    def gen_task_name(self, name: str, module: str) -> str:
        """One name for a task, whatever this module is called."""
        return name


def make_app(**conf: Any) -> Celery:
    """The application, with settings of one's own."""
    app = Project("processes", set_as_current=False)
    app.conf.update(conf)
    for body, options in BODIES:
        app.task(shared=False, **options)(body)
    return app


def visit(n: str) -> dict[str, Any]:
    """Short, and says where it was."""
    return {"pid": os.getpid(), "token": current_lease().token}


def stay(n: str) -> int:
    """Holds its lease, and renews it soon, until the file ``go`` is there."""
    deadline = time.monotonic() + PATIENCE
    with (Path(os.environ[FOLDER]) / "stays.txt").open("a") as stays:
        stays.write(f"{n}\n")
    while not (Path(os.environ[FOLDER]) / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return os.getpid()


def hoard(n: str) -> int:
    """Takes more memory than ``worker_max_memory_per_child`` lets it keep."""
    _hoarded.append(b"x" * HOARD)
    return os.getpid()


def mixed(self: Task, n: int) -> int:
    """Ends as its argument says: `ending_of`."""
    match ending_of(n):
        case "failed":
            raise ValueError(n)
        case "retried" if self.request.retries == 0:
            raise self.retry(countdown=0)
    return n


def costly(n: int) -> int:
    """Leaves a quiet period."""
    return n


def ending_of(n: int) -> str:
    """How a run of `mixed` on this argument ends."""
    return {0: "failed", 1: "retried", 2: "refused"}.get(n % 10, "well")


def key_of_mixed(n: int) -> str:
    """Its own, or the one that another holds."""
    return "held" if ending_of(n) == "refused" else f"mixed:{n}"


def census() -> dict[str, Any]:
    """What a worker's process keeps."""
    return {"pid": os.getpid(), **left_in(coordination(current_app))}


def left_in(coordinated: Coordination) -> dict[str, int]:
    """What the keeper of a process still has to do, and how many objects the process has."""
    gc.collect()
    keeper = coordinated.keeper
    return {"objects": len(gc.get_objects()), "held": len(keeper._holdings), "later": len(keeper._later)}


_hoarded: list[bytes] = []

BODIES: list[tuple[Any, dict[str, Any]]] = [
    (visit, {"base": ExclusiveTask}),
    (stay, {"base": ExclusiveTask, "exclusive": Exclusive(ttl=6)}),
    (hoard, {"base": ExclusiveTask}),
    (mixed, {"base": ExclusiveTask, "bind": True, "max_retries": 1, "key": key_of_mixed, "throws": (ValueError,)}),
    (costly, {"base": ExclusiveTask, "key": "costly", "cooldown": 1}),
    (census, {"ignore_result": False}),
]

if CONF in os.environ:  # started by a test, not imported by one
    app = make_app(**json.loads(os.environ[CONF]))
