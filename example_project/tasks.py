"""The tasks, and what is coordinated about them.

* `discover` comes from beat, and only the leading beat sends it. It is cheap, and coordinates nothing. (There is a
  second way to have it done by one of many: `components.py`.)
* `refresh_cluster_state` costs its cluster something, and is asked for far too often. At most one runs on a cluster at
  a time, and after a good one the cluster is left in peace for a while. Any run that comes in between is dropped.
* `forget_dead_replicas` acts on the same state, so it shares the cluster's key: neither runs beside the other.
"""

from __future__ import annotations

import redis

from celery_coord import CoordinatedTask, Exclusive, current_lease
from example_project import nodes, settings
from example_project.app import app
from example_project.inventory import Address, read_inventory
from example_project.journal import journal
from example_project.state import State

state = State(redis.Redis.from_url(settings.REDIS_URL, decode_responses=True))


class ClusterTask(CoordinatedTask):
    """A task that acts on a cluster: one at a time, whichever it is."""

    abstract = True
    key = "cluster:{cluster}"
    exclusive = Exclusive(ttl=settings.LEASE_SECONDS)


@app.task
def discover() -> None:
    """Look around, whenever beat says so."""
    with journal.body() as report:
        report["found"] = look_around()


def look_around() -> int:
    """Read the inventory, find replicas that it does not list, and ask for everything that may need doing.

    Returns:
        How many such replicas there are.
    """
    found = 0
    for cluster, listed in read_inventory(settings.INVENTORY).items():
        unlisted = nodes.unlisted_replicas(listed)
        found += len(unlisted)
        state.add_found(cluster, unlisted)
        refresh_cluster_state.delay(cluster)
        if state.has_dead_replicas(cluster):
            forget_dead_replicas.delay(cluster)
    return found


@app.task(base=ClusterTask, cooldown=settings.QUIET_SECONDS)
def refresh_cluster_state(cluster: str) -> None:
    """Ask every node of a cluster for its state, and keep it."""
    token = current_lease().token
    with journal.body(cluster, token) as report:
        seen = nodes.observe(_nodes_of(cluster), samples=settings.SAMPLES, pause=settings.SAMPLE_SECONDS)
        report["commands"] = seen.commands
        state.save(cluster, seen.nodes, token=token)


@app.task(base=ClusterTask)
def forget_dead_replicas(cluster: str) -> None:
    """Forget the replicas that were found once, and no longer answer."""
    token = current_lease().token
    with journal.body(cluster, token):
        dead = [address for address in state.found(cluster) if not nodes.answers(address)]
        state.forget(cluster, dead, token=token)


def _nodes_of(cluster: str) -> list[Address]:
    return [*read_inventory(settings.INVENTORY)[cluster], *state.found(cluster)]
