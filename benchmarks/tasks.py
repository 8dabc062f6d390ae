"""One body, guarded in each of the ways; imported by the worker alone.

All of them use a client of the same making, so that timeouts, protocol and parser are the same. Each task has an
argument of its own, so that no run meets another's lease or quiet period.
"""

from __future__ import annotations

import json
import os
import time

import redis_lock
from celery import Celery

from benchmarks.worker import DONE, GO, URL_VARIABLE
from celery_coord import Exclusive, ExclusiveTask
from celery_coord.stores.redis.address import Address

TTL = 30
COOLDOWN = 60

url = os.environ[URL_VARIABLE]
app = Celery("benchmarks", broker=url)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=100, coord_url=url)
client = Address.of(url, {}, timeout=2.0).client()


#: Which body began when, in the order in which they did.
bodies: list[tuple[str, float]] = []


def body(variant: str) -> None:
    """What every variant guards."""
    bodies.append((variant, time.perf_counter()))


@app.task(name="begin")
def begin() -> None:
    """Stand before the queue until it is full."""
    while client.lpop(GO) is None:
        time.sleep(0.005)
    bodies.clear()


@app.task(name="end")
def end() -> None:
    """Stand after the queue, and say what came of it."""
    client.rpush(DONE, json.dumps(bodies))


@app.task(name="bare")
def bare(n: int) -> None:  # noqa: ARG001  the same message for every variant
    """The task, unguarded."""
    body("bare")


@app.task(name="floor")
def floor(n: int) -> None:
    """Two round trips, as cheap as they come."""
    client.get(f"floor:{n}")
    body("floor")
    client.get(f"floor:{n}")


@app.task(name="coordinated", base=ExclusiveTask, key=["n"], exclusive=Exclusive(ttl=TTL), cooldown=COOLDOWN)
def coordinated(n: int) -> None:  # noqa: ARG001  the key is made from it
    """Ours."""
    body("coordinated")


@app.task(name="redis_py")
def redis_py(n: int) -> None:
    """redis-py's Lock: no renewal, no token, no quiet period."""
    with client.lock(f"redis_py:{n}", timeout=TTL):
        body("redis_py")


@app.task(name="redis_lock")
def redis_lock_by_hand(n: int) -> None:
    """python-redis-lock: no renewal, no token, no quiet period."""
    with redis_lock.Lock(client, f"redis_lock:{n}", expire=TTL):
        body("redis_lock")


@app.task(name="redis_lock_full")
def redis_lock_with_renewal_and_cooldown(n: int) -> None:
    """python-redis-lock, renewed, with a quiet period: all but the token."""
    cooldown = f"redis_lock_full:cooldown:{n}"
    if client.exists(cooldown):
        return
    with redis_lock.Lock(client, f"redis_lock_full:{n}", expire=TTL, auto_renewal=True):
        body("redis_lock_full")
    client.set(cooldown, 1, ex=COOLDOWN)
