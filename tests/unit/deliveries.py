"""Deliveries of messages, as a worker makes them, in this process."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from celery import Celery, Task
from celery.app.trace import trace_task

_ids = itertools.count(1)


def fresh_id() -> str:
    return f"run-{next(_ids)}"


def run(task: Task, task_id: str, *args: Any, **request: Any) -> Any:
    """One delivery of a message to a worker."""
    delivery = {"exchange": "", "routing_key": task.app.conf.task_default_queue, **request.pop("delivery_info", {})}
    whole = {"id": task_id, "called_directly": False, "delivery_info": delivery, "hostname": "here", **request}
    return trace_task(task, task_id, args, {}, whole, app=task.app)


def state_of(task: Task, task_id: str) -> str:
    return str(task.AsyncResult(task_id).state)


def sent(app: Celery) -> list[dict[str, Any]]:
    """The headers of what waits in the queue."""
    with app.connection_for_read() as connection, connection.SimpleQueue(app.conf.task_default_queue) as queue:
        found = []
        while queue.qsize():
            found.append(queue.get_nowait())
            found[-1].ack()
    return [message.headers for message in found]


def seconds_until(eta: str) -> float:
    return (datetime.fromisoformat(eta) - datetime.now(UTC)).total_seconds()


def lambda_free() -> None:
    """Celery cannot make a task of a lambda."""
