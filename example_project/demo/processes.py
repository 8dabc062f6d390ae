"""One process of the demo: started in a session of its own, with a log, and ended with all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

#: How long a process may take to end by itself, in seconds.
_PATIENCE = 8.0
_TAIL = 15


class Program:
    """A Python module that runs as a process.

    Args:
        name: what it is called here.
        arguments: the module and its arguments, as after ``python -m``.
        environment: what it finds in its environment.
        folder: where its log is written.
    """

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which ends the others in order
            )

    @property
    def pid(self) -> int:
        """Its process, which leads its process group."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def has_said(self, text: str) -> bool:
        """Whether its log has this text."""
        return text in self._log.read_text(encoding="utf-8", errors="replace")

    def tail(self) -> str:
        """The last lines of its log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
        return "\n".join([f"--- {self.name}, the end of its log", *lines])

    def kill(self) -> None:
        """End it as a crash does: this process, at once."""
        self._process.kill()
        self._process.wait()

    @property
    def family(self) -> list[int]:
        """This process, and all that it started."""
        return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]

    def kill_all(self) -> None:
        """End it as the loss of its machine does: this process and all that it started, at once."""
        family = self.family
        os.killpg(self.pid, signal.SIGKILL)
        for pid in family:
            see_it_dead(pid)
        self._process.wait()

    def ask_to_end(self) -> None:
        """Ask it to end in its own time; once, since Celery takes a second time for impatience."""
        self._process.terminate()

    def see_it_end(self) -> None:
        """Wait until it has ended, and end what is left of it and of what it started."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


def see_it_dead(pid: int) -> None:
    """Wait until a process is dead, which has been killed; it may be somebody else's child."""
    deadline = time.monotonic() + _PATIENCE
    with suppress(psutil.NoSuchProcess):
        # A zombie is dead: its parent may be seconds late to notice.
        while time.monotonic() < deadline and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
