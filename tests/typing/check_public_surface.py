"""Read by the type checkers, run by nobody: what users write must be what the types say."""

from __future__ import annotations

from datetime import timedelta
from typing import assert_type

from celery_coord import (
    Cooldown,
    Cooling,
    CoordinatedTask,
    Dropped,
    Election,
    Exclusive,
    Held,
    Holding,
    Leader,
    Look,
    TaskDropped,
    component,
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


def as_a_leader(election: Election) -> None:
    assert_type(election.campaign(timeout=5), bool)
    assert_type(election.leads, bool)
    assert_type(election.term, int | None)
    assert_type(election.ensure(), int)
    assert_type(election.observe(), Leader | None)
    election.run(print, every=timedelta(seconds=1))


@component(object(), every=30)
def discover(term: int) -> str:
    return str(term)


assert_type(discover(7), str)
Exclusive(on_conflict="wait")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Cooldown()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
