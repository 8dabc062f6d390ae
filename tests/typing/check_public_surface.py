"""Read by the type checkers, run by nobody: what users write must be what the types say."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from celery_coord import (
    Cooldown,
    Cooling,
    CoordinatedTask,
    Dropped,
    Exclusive,
    Held,
    Holding,
    Look,
    TaskDropped,
    current_lease,
)


class ClusterTask(CoordinatedTask):
    abstract = True
    key = "cluster:{cluster_id}"
    exclusive = Exclusive(ttl=30, on_conflict="drop")
    cooldown = Cooldown(timedelta(minutes=1), on_failure=10, jitter=0.1)
    on_drop = "return"


class NamedTask(CoordinatedTask):
    key = ["cluster_id"]
    exclusive = True
    cooldown = 60


def in_a_body() -> None:
    assert_type(current_lease(), Holding)
    assert_type(current_lease(None), Holding | None)
    assert_type(current_lease().token, int)
    assert_type(current_lease().lost, bool)
    current_lease().ensure()


def outside(task: ClusterTask) -> None:
    look = task.look(7)
    assert_type(look, Look)
    assert_type(look.held, Held | None)
    assert_type(look.cooling, Cooling | None)
    assert_type(task.clear_cooldown(7), bool)
    assert_type(Dropped.of(None), Dropped | None)
    assert_type(TaskDropped("held", "k").left, float | None)


Exclusive(on_conflict="wait")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Cooldown()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
