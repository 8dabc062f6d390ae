"""celery_coord: exclusive tasks, quiet periods and one leader, for Celery.

For example:

    from celery_coord import ExclusiveTask

    @app.task(base=ExclusiveTask, key=["cluster_id"], cooldown=60)
    def refresh_cluster_state(cluster_id, *, deep=False): ...
"""

from celery_coord import signals
from celery_coord.components import component
from celery_coord.drop import Dropped, TaskDropped
from celery_coord.errors import (
    ConfigurationError,
    CoordError,
    LeaseLost,
    NoLease,
    NotLeader,
    StoreError,
    UnstableKey,
)
from celery_coord.gate import current_lease
from celery_coord.leader import Leader
from celery_coord.leading import Election
from celery_coord.lease import Cooling, Held, Look
from celery_coord.parent import ParentLease, parent_lease
from celery_coord.policy import Cooldown, Exclusive
from celery_coord.renewal import Holding
from celery_coord.task import CooldownTask, CoordinatedTask, ExclusiveTask

__all__ = [
    "ConfigurationError",
    "Cooldown",
    "CooldownTask",
    "Cooling",
    "CoordError",
    "CoordinatedTask",
    "Dropped",
    "Election",
    "Exclusive",
    "ExclusiveTask",
    "Held",
    "Holding",
    "Leader",
    "LeaseLost",
    "Look",
    "NoLease",
    "NotLeader",
    "ParentLease",
    "StoreError",
    "TaskDropped",
    "UnstableKey",
    "component",
    "current_lease",
    "parent_lease",
    "signals",
]
