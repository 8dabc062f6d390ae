"""A worker, and what it says of one round."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import count, pairwise
from statistics import quantiles
from typing import Self

from celery import Celery

from benchmarks.variants import Variant
from celery_coord.stores.redis.address import Address

#: The environment variable that tells the worker where the server is.
URL_VARIABLE = "BENCHMARKS_URL"
#: Lists in the server: the queue is full; what came of it.
GO, DONE = "benchmarks:go", "benchmarks:done"
#: How many messages of a variant stand together in the queue.
TURN = 25

#: Seconds a task.
Times = dict[Variant, float]

_PATIENCE = 300.0
_OPTIONS = ("--pool=solo", "--loglevel=WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")


class Worker:
    """One worker process, and the queue that it drains.

    Args:
        url: the server that is broker and store at once.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._app = Celery(broker=url)
        self._client = Address.of(url, {}, timeout=2.0).client()
        self._numbers = count()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.tasks", "--quiet", "worker", *_OPTIONS]
        environment = {**os.environ, URL_VARIABLE: self._url}
        self._process = subprocess.Popen(command, env=environment)
        return self

    def __exit__(self, *_: object) -> None:
        self._app.close()
        self._client.close()
        if self._process is not None:
            self._process.kill()  # it has nothing to lose, and may be standing in `begin`
            self._process.wait()

    def round(self, turns: Sequence[Variant]) -> Times:
        """Let the variants take these turns in one queue; the time a task of each.

        Raises:
            RuntimeError: a body did not run, or the worker has ended.
        """
        self._send("begin")
        for variant in turns:
            for _ in range(TURN):
                self._send(variant.task, next(self._numbers))
        self._send("end")
        self._client.rpush(GO, 1)
        bodies = json.loads(self._answer())
        if [variant for variant, _ in bodies] != [variant.task for variant in turns for _ in range(TURN)]:
            raise RuntimeError("not every body ran once, in its turn")
        return {variant: _quiet(_intervals(bodies, variant)) for variant in set(turns)}

    def _send(self, task: str, *args: int) -> None:
        self._app.send_task(task, args, ignore_result=True)

    def _answer(self) -> str:
        deadline = time.monotonic() + _PATIENCE
        while (answer := self._client.lpop(DONE)) is None:
            if time.monotonic() > deadline or (self._process and self._process.poll() is not None):
                raise RuntimeError("the worker did not drain its queue")
            time.sleep(0.02)
        return str(answer)


def _quiet(intervals: Sequence[float]) -> float:
    """The time that the quickest tenth stays within: what else runs on the machine only ever adds."""
    return quantiles(intervals, n=10)[0]


def _intervals(bodies: Sequence[tuple[str, float]], variant: Variant) -> list[float]:
    """The times from one body of a variant to the next, where nothing else stands between them."""
    return [
        ended - began
        for (before, began), (after, ended) in pairwise(bodies)
        if before == variant.task and after == variant.task
    ]
