"""Interrupts a body that has lost its lease, as a soft time limit does: by a signal to the main thread of its process.

A signal handler runs between two steps of the main thread. So it sees exactly whether the body is still at work, and it
ends a call that blocks. Only the main thread can be interrupted so: a body in another thread, or in a greenlet, has to
ask `celery_coord.current_lease` itself.

The signal is SIGURG, which means nothing to most programs and does nothing by default; soft time limits have another.
What was installed for it before gets each one, too. It is sent until it has struck: a body that another one interrupts,
as an eager run does, is struck when that has ended.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from celery_coord.errors import LeaseLost
from celery_coord.renewal import Holding

_NUMBER: Any = getattr(signal, "SIGURG", None)
#: How long until a signal that struck nobody is sent again, in seconds.
_AGAIN_AFTER = 0.05

#: Whose body is at work in the main thread; the innermost, where bodies are nested.
_at_work: Interrupt | None = None
#: Whether the handler is at work.
_handling = False
#: What was installed for the signal before us.
_before_us: Any = signal.SIG_DFL


def is_possible() -> bool:
    """Whether a body can be interrupted in the calling thread."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    return in_main_thread and _NUMBER is not None and hasattr(signal, "pthread_kill")


class Interrupt:
    """While this is entered, the loss of a lease raises `LeaseLost` in the main thread, once.

    Args:
        holding: the lease.
    """

    def __init__(self, holding: Holding) -> None:
        self._holding = holding
        self._outer = _at_work
        self._over = False
        self._changed = threading.Event()

    def __enter__(self) -> Self:
        global _at_work  # noqa: PLW0603  a signal handler belongs to the process
        _listen()
        self._holding.on_lost = self._changed.set
        threading.Thread(target=self._watch, name="celery_coord-interrupt", daemon=True).start()
        _at_work = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        global _at_work  # noqa: PLW0603
        _at_work = self._outer
        self._over = True
        self._holding.on_lost = None
        self._changed.set()

    def _watch(self) -> None:
        """In a thread of its own: the keeper may be waiting for a store that does not answer."""
        while not (self._over or self._holding.ended):
            if self._holding.lost:
                signal.pthread_kill(_main_thread_id(), _NUMBER)
                self._changed.wait(_AGAIN_AFTER)
            else:
                self._changed.wait(max(0.0, self._holding.trusted_for))
            self._changed.clear()

    def strike(self) -> None:
        """A signal has come, and the body is at work.

        Raises:
            LeaseLost: its lease is lost, and it was not told so yet.
        """
        if self._holding.lost and not (self._over or self._holding.ended):
            self._over = True
            raise LeaseLost(self._holding.lease.key, self._holding.lease.owner)


def _main_thread_id() -> int:
    ident = threading.main_thread().ident
    assert ident is not None  # noqa: S101  it runs
    return ident


def _listen() -> None:
    global _before_us  # noqa: PLW0603
    found = signal.getsignal(_NUMBER)
    if found is not _on_signal:
        _before_us = found
        signal.signal(_NUMBER, _on_signal)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _handling  # noqa: PLW0603
    if _handling:  # one that was installed after us calls us, and was found before us
        return
    _handling = True
    try:
        if callable(_before_us):
            _before_us(number, frame)
    finally:
        _handling = False
    if _at_work is not None:
        _at_work.strike()
