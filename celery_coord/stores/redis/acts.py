"""The acts of a store: a script each, in the file that is named like it."""

from __future__ import annotations

import math

from celery_coord.stores.redis.scripts import Script

ACQUIRE = Script("acquire", after=("layout", "ended"))
RENEW = Script("renew", after=("ended",))
SETTLE = Script("settle", after=("ended",))
HOLD = Script("hold", after=("ended",))
REFUSES = Script("refuses", after=("layout", "ended"), writes=False)
COOL = Script("cool", after=("ended",))
LOOK = Script("look", writes=False)
RECORD = Script("record")
ERASE = Script("erase")


def milliseconds(seconds: float) -> int:
    """As scripts count."""
    return math.ceil(seconds * 1000)
