"""An application whose workers run components: ``celery -A component_project worker``."""

from __future__ import annotations

import json
import os
import threading
import time
from functools import partial

from coord_project import URL, app, await_that, recorder

from celery_coord import component

__all__ = ["app"]


def tell(what: str, term: int) -> None:
    line = {
        "what": what,
        "term": term,
        "pid": os.getpid(),
        "at": time.time(),
        "thread": threading.current_thread().name,
    }
    recorder().rpush("component", json.dumps(line))


if URL in os.environ:  # started by a test, not imported by one
    hooks = {"elected": partial(tell, "elected"), "deposed": partial(tell, "deposed")}

    @component(app, every=0.1, ttl=5, label="the poller", **hooks)
    def poll(term: int) -> None:
        tell("round", term)

    @component(app, every=0.1, name="slow", ttl=5, longest_round=0.5)
    def wait_for_the_test(term: int) -> None:
        recorder().rpush("slow", os.getpid())
        await_that(lambda: not recorder().exists("stuck"))
