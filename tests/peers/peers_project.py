"""The application of `coord_project`, with the tasks that other libraries fail on: ``celery -A peers_project ...``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import coord_project
from celery import Celery, Task
from coord_project import await_go, facts, tell, tell_all
from coord_site import Site
from local_processes import CeleryProcess

from celery_coord import Exclusive, ExclusiveTask

_HERE = Path(__file__).parent
_BESIDE = Path(coord_project.__file__).parent


def declare(app: Celery) -> Celery:
    """Add our tasks to an application."""

    @app.task(
        base=ExclusiveTask,
        key="n:{n}",
        exclusive=Exclusive(ttl=30),
        acks_late=True,
        reject_on_worker_lost=True,
        shared=False,
    )
    def sturdy(n: str) -> dict[str, Any]:
        return tell_all(n, wait=True)

    @app.task(base=ExclusiveTask, key="n:{n}", exclusive=Exclusive(ttl=7), acks_late=True, shared=False)
    def frail(n: str) -> dict[str, Any]:
        return tell_all(n, wait=True)

    @app.task(base=ExclusiveTask, key="n:{n}", shared=False)
    def one_of(n: str, name: str) -> dict[str, Any]:
        """A run with a name of its own, that ends when this name is told to go."""
        tell(n, f"begin {name}")
        await_go(name)
        tell(n, f"end {name}")
        return facts()

    @app.task(base=ExclusiveTask, key="n:{n}", bind=True, default_retry_delay=0, shared=False)
    def lingering(self: Task, n: str) -> dict[str, Any]:
        """Holds its key until its own retry has begun, and longer."""
        tell(n, f"try {self.request.retries}")
        if self.request.retries == 0:
            sent = self.retry(countdown=0, throw=False)
            await_go(n)
            raise sent
        return facts()

    @app.task(base=ExclusiveTask, shared=False)
    def priced(n: int, rate: float = 2.0) -> float:
        """All its arguments are its key."""
        await_go(f"priced-{n}")
        return n * rate

    @app.task(base=ExclusiveTask, key="n:{n}", bind=True, shared=False)
    def calling(self: Task, n: str, other: str) -> list[str]:
        """A body that calls other tasks as plain functions, itself among them."""
        if n == other:
            return [n]
        return [*self(other, other), self.app.tasks["same"](n)]

    return app


class PeersSite(Site):
    """A site whose processes run this application."""

    def __init__(self, *args: Any, **conf: Any) -> None:
        super().__init__(*args, **conf)
        declare(self.app)

    def celery(
        self,
        *arguments: str,
        project: str = "peers_project",
        folder: str = "",
        env: Mapping[str, str] | None = None,
        **conf: Any,
    ) -> CeleryProcess:
        places = [str(_HERE), str(_BESIDE), str(_HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        importable = {"PYTHONPATH": os.pathsep.join(places), **(env or {})}
        return super().celery(*arguments, project=project, folder=folder, env=importable, **conf)

    def keys_of(self, n: str) -> list[str]:
        """What the store keeps that has to do with this argument, but for what bodies told and remembered ends."""
        names = (self.lock_name(n), self.cooldown_name(n))
        return [name for name in names if self.client.exists(name)]


if coord_project.URL in os.environ:  # started by a test, not imported by one
    app = declare(coord_project.app)
