"""What `coord_min_replicas` costs: acquire and settle on one primary, with and without a replica to confirm them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from statistics import median, quantiles

import redis

from celery_coord.clock import SystemClock
from celery_coord.lease import Lease, Owner
from celery_coord.stores import Store
from celery_coord.stores.opening import open_store
from celery_coord.testing import LocalServer

#: How many replicas have to confirm, in each row.
CONFIRM = (0, 1)
#: How many pairs of acts stand together before the other row has its turn.
TURN = 50

_PATIENCE = 30.0
_ROW = "{:<48} {:>12} {:>15}"


def report(turns: int) -> str:
    """Measure, and say it.

    Args:
        turns: how many turns each row has.
    """
    with _primary_with_replica() as url:
        stores = {confirm: _open(url, confirm) for confirm in CONFIRM}
        numbers = count()
        for store in stores.values():
            _turn(store, numbers.__next__)  # connections and scripts are there before the first turn
        times: dict[int, list[float]] = {confirm: [] for confirm in CONFIRM}
        for _ in range(turns):
            for confirm, store in stores.items():
                times[confirm] += _turn(store, numbers.__next__)
        for store in stores.values():
            store.close()
    return "\n".join(_table(times))


def _table(times: dict[int, list[float]]) -> Iterator[str]:
    header = _ROW.format("acquire and settle, a replica on the same machine", "ms a pair", "(9 of 10 below)")
    yield header
    yield "-" * len(header)
    for confirm, measured in times.items():
        below = quantiles(measured, n=10)[-1] * 1000
        yield _ROW.format(f"coord_min_replicas = {confirm}", f"{median(measured) * 1000:.3f}", f"{below:.3f}")


def _turn(store: Store, number: Callable[[], int]) -> list[float]:
    """The seconds of each pair."""
    times = []
    for _ in range(TURN):
        n = number()
        began = time.perf_counter()
        lease = store.acquire(f"n:{n}", Owner.new(f"run-{n}"), 30.0, heed_cooldown=True)
        if not isinstance(lease, Lease) or not store.settle(lease, cooldown=60.0):
            raise RuntimeError("a key of its own was not to be had")
        times.append(time.perf_counter() - began)
    return times


def _open(url: str, min_replicas: int) -> Store:
    return open_store(url, namespace="benchmarks", timeout=2.0, clock=SystemClock(), min_replicas=min_replicas)


@contextmanager
def _primary_with_replica() -> Iterator[str]:
    with LocalServer() as primary, LocalServer(["--replicaof", "127.0.0.1", str(primary.port)]) as replica:
        deadline = time.monotonic() + _PATIENCE
        with redis.Redis.from_url(replica.url) as client:
            while client.info("replication")["master_link_status"] != "up":
                if time.monotonic() > deadline:
                    raise RuntimeError("the replica did not find its primary")
                time.sleep(0.05)
        yield primary.url
