"""An application whose every task is a `CoordinatedTask`, none with options, and whose store cannot work."""

from __future__ import annotations

import os

from celery import Celery, Task

URL = os.environ["PROJECT_URL"]

app = Celery("plain", task_cls="celery_coord:CoordinatedTask", broker=URL, backend=URL)
app.conf.coord_url = "no://store"


@app.task(bind=True, name="own_id")  # type: ignore[untyped-decorator]  # Celery has no types
def own_id(self: Task, factor: int) -> tuple[str, int]:
    return self.request.id, factor
