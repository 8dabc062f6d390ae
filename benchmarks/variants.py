"""Which ways of guarding a task are measured, under which names."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of guarding a task.

    Attributes:
        task: the name of the task in `benchmarks.tasks`.
        title: what the report calls it.
    """

    task: str
    title: str


BARE = Variant("bare", "bare task")
FLOOR = Variant("floor", "two round trips (the floor)")
COORDINATED = Variant("coordinated", "celery_coord: lease, cooldown, token, renewal")
#: What people do by hand.
OTHERS = (
    Variant("redis_py", "redis-py Lock"),
    Variant("redis_lock", "python-redis-lock"),
    Variant("redis_lock_full", "python-redis-lock, renewal and cooldown by hand"),
)
VARIANTS = (BARE, FLOOR, COORDINATED, *OTHERS)
