"""The application of `coord_project`, with what canvases need beside it: ``celery -A canvas_project ...``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import coord_project
from celery import Celery, Task
from coord_project import tell_all
from coord_site import Site
from local_processes import CeleryProcess

from celery_coord import ExclusiveTask

#: Longer than any session of tests: a key that cools once cools for all of them.
_FOR_LONG = 86400.0


def declare(app: Celery) -> Celery:
    """Add our tasks to an application."""

    @app.task(base=ExclusiveTask, key="n:{n}", cooldown=_FOR_LONG, shared=False)
    def firm(n: str) -> dict[str, Any]:
        return tell_all(n)

    @app.task(base=ExclusiveTask, key="n:{n}", cooldown=_FOR_LONG, on_drop="return", shared=False)
    def polite(n: str) -> dict[str, Any]:
        return tell_all(n)

    @app.task(base=ExclusiveTask, key="n:{n}", ignore_result=True, store_errors_even_if_ignored=True, shared=False)
    def heard_if_it_fails(n: str) -> None:
        tell_all(n)

    @app.task(bind=True, shared=False)
    def become(self: Task, canvas: dict[str, Any]) -> None:
        self.replace(self.app.signature(canvas))

    return app


class CanvasSite(Site):
    """A site whose processes run this application."""

    def __init__(self, *args: Any, **conf: Any) -> None:
        super().__init__(*args, **conf)
        declare(self.app)

    def celery(
        self,
        *arguments: str,
        project: str = "canvas_project",
        folder: str = "",
        env: Mapping[str, str] | None = None,
        **conf: Any,
    ) -> CeleryProcess:
        return super().celery(*arguments, project=project, folder=folder, env=env, **conf)


if coord_project.URL in os.environ:  # started by a test, not imported by one
    app = declare(coord_project.app)
