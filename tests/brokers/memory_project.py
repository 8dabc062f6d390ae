"""The application in a process that is broker, publisher and worker: ``celery -A memory_project worker -P threads``.

What a test wants to be published is asked for in Redis, as the JSON of a signature.
"""

from __future__ import annotations

import json
from threading import Thread
from typing import Any

from celery import Signature
from celery.signals import worker_ready
from coord_project import app, recorder

#: The list in which it is asked for.
PUBLISH = "publish"


def publish() -> None:
    while True:
        asked = recorder().blpop(PUBLISH, timeout=1)  # redis-py's own patience is a few seconds
        if asked:
            Signature.from_dict(json.loads(asked[1]), app=app).apply_async()


@worker_ready.connect
def begin(**_: Any) -> None:
    Thread(target=publish, daemon=True).start()
