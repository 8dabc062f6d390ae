"""What the end of a process must not cut in two: a claim and its message.

Celery's beat ends by an exception that its handler of SIGTERM raises wherever it strikes. Between a claim and its
message that would lose the instant; inside of the publish it would make a failure of a message that the broker has.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: For how long a request to end waits at most, in seconds: a publish may hang.
_PATIENCE = 5.0


class Undisturbed:
    """Holds SIGTERM and SIGINT back between `begin` and `end`. One that comes again goes through."""

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._is_busy = False
        self._came: list[int] = []

    def install(self) -> None:
        """Stand before the handlers that there are. Signals strike in the main thread: only there can they be held."""
        if not self._handlers and threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.getsignal(number) for number in _SIGNALS}
            for number in _SIGNALS:
                signal.signal(number, self._handle)

    def remove(self) -> None:
        """Leave the handlers as they were; may be called twice."""
        if threading.current_thread() is threading.main_thread():
            handlers, self._handlers = self._handlers, {}
            for number, handler in handlers.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def begin(self) -> None:
        """From now on they wait."""
        self._is_busy = True

    def end(self) -> None:
        """What came meanwhile strikes now; may be called twice."""
        self._is_busy = False
        came, self._came = self._came, []
        if came:
            self._pass_on(came[0], None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._is_busy or self._came:
            self._is_busy, self._came = False, []
            self._pass_on(number, frame)
            return
        self._came = [number]
        reminder = threading.Timer(_PATIENCE, self._remind, (self._came,))
        reminder.daemon = True
        reminder.start()

    def _remind(self, came: list[int]) -> None:
        if came is self._came:
            os.kill(os.getpid(), came[0])

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        handler = self._handlers.get(number)
        if callable(handler):
            handler(number, frame)
        elif handler is not signal.SIG_IGN:
            self.remove()
            signal.raise_signal(number)
