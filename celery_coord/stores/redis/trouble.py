"""While a server does not answer, or takes no writes: since when, and how often it was asked in vain."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

from redis.exceptions import ConnectionError as RedisConnectionError, RedisError, TimeoutError as RedisTimeoutError

#: Is told, when the trouble is over, for how long it lasted, in seconds, and how many acts failed.
OnOver = Callable[[float, int], None]

#: What a server answers to all that write. Other errors (no room, no right, a key of the wrong kind) are those of one
#: act: the next one, which may need less, is no sign that they are over.
_TAKES_NO_WRITES = re.compile(
    "READONLY|read only|MISCONF|BUSY|NOREPLICAS|MASTERDOWN|CLUSTERDOWN|coord_min_replicas", re.IGNORECASE
)


class Trouble:
    """Counts what a server does not answer, and notices when it does again.

    A server that takes no writes may still answer those who look: so an answered write ends any trouble, and an
    answered look only that of those who look.

    Args:
        on_over: is told when it is over.
    """

    def __init__(self, on_over: OnOver) -> None:
        self._on_over = on_over
        self._lock = threading.RLock()
        self._of_writes = False
        self._since = 0.0
        self._failures = 0

    @property
    def lasts(self) -> bool:
        """Whether there is any."""
        return self._failures > 0

    def failed(self, error: RedisError, *, writes: bool) -> None:
        """An act was not answered, or refused."""
        is_away = isinstance(error, RedisConnectionError | RedisTimeoutError)
        if not is_away and not _TAKES_NO_WRITES.search(f"{type(error).__name__} {error}"):
            return
        with self._lock:
            if not self._failures:
                self._since, self._of_writes = time.monotonic(), False
            self._failures += 1
            self._of_writes = self._of_writes or writes

    def answered(self, *, writes: bool) -> None:
        """An act was answered."""
        with self._lock:
            if not self._failures or (self._of_writes and not writes):
                return
            lasted, failures, self._failures = time.monotonic() - self._since, self._failures, 0
        self._on_over(lasted, failures)
