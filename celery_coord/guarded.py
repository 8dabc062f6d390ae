"""A command that runs under a guardian, as its parent sees it; the guardian itself is `celery_coord.guardian`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from celery_coord import guardian

#: Its guardian ended without a word, and so it was killed.
UNGUARDED = "unguarded"
#: There was nothing to run.
CANNOT = "cannot"

#: How long it may take until a killed group is gone, and its guardian with it, in seconds.
_PATIENCE = 2.0
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status, as a shell has it.
        why: `guardian.ITSELF`, `guardian.ASKED`, `guardian.LAPSED`, `UNGUARDED` or `CANNOT`.
        words: why it could not be started; else empty.
    """

    status: int
    why: str
    words: str = ""


class Guarded:
    """A command, from its start until nothing of its process group is left.

    Args:
        command: the program and its arguments.
        grace: seconds from SIGTERM to SIGKILL.
        until: until when it may run, on this machine's monotonic clock; `extend` gives it more time.
        environment: all its variables.
    """

    def __init__(self, command: Sequence[str], *, grace: float, until: float, environment: Mapping[str, str]) -> None:
        self._grace = grace
        self._until = until
        self._gone_by = _NEVER
        self._group = 0
        self._heard = b""
        self.ended: Ended | None = None
        theirs, self._control = os.pipe()
        self._report, report = os.pipe()
        os.set_blocking(self._control, False)
        program = [sys.executable, "-I", "-S", guardian.__file__]
        try:
            self._guardian = subprocess.Popen(  # noqa: S603  to run what it is told to is what it is for
                [*program, str(theirs), str(report), str(grace), str(until), *command],
                pass_fds=(theirs, report),
                env=environment,
                process_group=0,  # Ctrl-C and Ctrl-Z in a terminal are for us
            )
        finally:
            os.close(theirs)
            os.close(report)

    def fileno(self) -> int:
        """What can be read from when there is something to `hear`."""
        return self._report

    def extend(self, until: float) -> None:
        """Let it run until a later instant."""
        if until > self._until:
            self._until = until
            self._tell(f"until {until}")

    @property
    def late(self) -> float:
        """The seconds since which it should be dead; below 0 where it need not be yet."""
        return time.monotonic() - min(self._until, self._gone_by)

    def signal(self, number: int) -> None:
        """Pass a signal on."""
        self._tell(f"signal {number}")

    def end(self) -> None:
        """Ask for its end, once: SIGTERM, and SIGKILL after the grace."""
        if self._gone_by == _NEVER:
            self._gone_by = time.monotonic() + self._grace + _PATIENCE
            self._tell("end")

    def kill(self) -> None:
        """Ask for its end without any grace."""
        self._tell("kill")

    def end_both(self) -> None:
        """Kill it together with its guardian, which may be stopped or stuck; `hear` does the rest."""
        self._guardian.kill()

    def hear(self) -> None:
        """Take note of what the guardian has said, or that it has ended."""
        said = os.read(self._report, 4096)
        *lines, self._heard = (self._heard + said).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            self._note(word, rest)
        if not said and self.ended is None:
            self._end_group()
            self.ended = Ended(128 + signal.SIGKILL, UNGUARDED)

    def _note(self, word: str, rest: str) -> None:
        if word == "started":
            self._group = int(rest)
            return
        status, _, words = rest.partition(" ")
        if word == "cannot":
            self.ended = Ended(int(status), CANNOT, words)
        else:
            self.ended = Ended(int(status), words)

    def _end_group(self) -> None:
        """What the guardian would have done: Linux kills the command with its guardian, and nothing else."""
        deadline = time.monotonic() + _PATIENCE
        while self._group and time.monotonic() < deadline:
            try:
                os.killpg(self._group, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(0.01)

    def _tell(self, words: str) -> None:
        try:
            os.write(self._control, f"{words}\n".encode())
        except (BlockingIOError, BrokenPipeError):
            return  # it is stopped, or has ended: the command will not run for longer than it has been told

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Whatever happened to us, nothing is left running."""
        os.close(self._control)
        try:
            self._guardian.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._guardian.kill()
            self._guardian.wait()
        os.close(self._report)
