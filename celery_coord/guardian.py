"""The process between ``celery coord run`` and its command: it starts the command, and ends it when its time is up.

It is a program of its own, which imports nothing of this library and is ready in a blink. It has one thread. It reads
from a pipe until when the command may run, and needs nobody to end it. So what becomes of its parent does not matter:

===============================  ========================================================================
the parent is killed             the pipe closes: the command is killed at once
the parent is paused, or stuck   no more time is given: SIGTERM, and SIGKILL before the time is up
the guardian is killed           Linux kills the command, and the parent kills the rest of its group
===============================  ========================================================================

The command has a process group of its own, and what is done to it is done to the group. A process that has left the
group (a daemon) is out of reach, and so is one that has become another user's.

Not promised: anything about a parent and a guardian that are killed in the same instant, beyond that Linux kills the
command then, too; its children live on. Where the system is not Linux, a command whose guardian was killed is ended by
the parent alone.

What is said, a line each. To the guardian: ``until T``, an instant of this machine's monotonic clock; ``end``;
``kill``; ``signal N``. By the guardian: ``started PID``; ``cannot STATUS WORDS``; ``ended STATUS WHY``.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable

#: Why a command ended: by itself, because that was asked for, or because its time was up.
ITSELF, ASKED, LAPSED = "itself", "asked", "lapsed"

#: What a shell says of a command that is not there, and of one that cannot be run.
NOT_FOUND, NOT_EXECUTABLE = 127, 126

#: How often a group that is to end is looked at, in seconds: nobody tells us that its last process is gone.
_LOOK_EVERY = 0.02
#: For how long a killed group is looked at: what is left of it then is dead, and its parent has not asked how it ended.
_LONGEST_LOOK = 1.0

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Guardian:
    """Guards one command.

    Args:
        control: the pipe to read from.
        report: the pipe to write to.
        grace: seconds from SIGTERM to SIGKILL.
        until: until when the command may run, on this machine's monotonic clock.
    """

    def __init__(self, control: int, report: int, *, grace: float, until: float) -> None:
        self._control = control
        self._report = report
        self._grace = grace
        self._until = until
        self._selector = selectors.DefaultSelector()
        self._heard = b""
        self._group = 0
        self._code: int | None = None
        self._why = ""
        self._kill_at = float("inf")

    def run(self, command: list[str]) -> None:
        """Start the command, and return when nothing of its group is left."""
        self._selector.register(self._control, selectors.EVENT_READ, self._hear)
        self._selector.register(_woken_by_signals(), selectors.EVENT_READ, _drain)
        self._listen(0.0)  # the parent may be gone already
        self._keep_time()
        if not self._why and not self._start(command):
            return
        while self._goes_on():
            self._listen(self._longest_sleep())
            self._reap()
            self._keep_time()
        self._say(f"ended {status_of(self._code or 0)} {self._why}")

    def _start(self, command: list[str]) -> bool:
        try:
            process = subprocess.Popen(command, process_group=0, preexec_fn=_dying_with(os.getpid()))  # noqa: S603, PLW1509
        except OSError as error:
            status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            self._say(f"cannot {status} {error.strerror or error}")
            return False
        process.returncode = 0  # so that it asks for no end itself: children are reaped in one place
        self._group = process.pid
        self._say(f"started {self._group}")
        return True

    def _goes_on(self) -> bool:
        if not self._group:
            return False
        if self._code is None:
            return True
        return time.monotonic() < min(self._kill_at, self._until) + _LONGEST_LOOK and self._send(0)

    def _longest_sleep(self) -> float:
        if self._why:
            return _LOOK_EVERY
        return max(0.0, self._until - self._grace - time.monotonic())

    def _listen(self, timeout: float) -> None:
        for key, _ in self._selector.select(timeout):
            key.data(key.fd)

    def _hear(self, control: int) -> None:
        said = os.read(control, 65536)
        if not said:
            self._selector.unregister(control)
            self._kill()
        *lines, self._heard = (self._heard + said).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            self._obey(word, rest)

    def _obey(self, word: str, rest: str) -> None:
        if word == "until":
            self._until = float(rest)
        elif word == "signal":
            self._send(int(rest))
        elif word == "end":
            self._end(ASKED)
        elif word == "kill":
            self._kill()

    def _kill(self) -> None:
        self._why = self._why or ASKED
        self._kill_at = time.monotonic()

    def _reap(self) -> None:
        """Ask how children ended: the command, and those of its group whose own parents are gone."""
        while (child := _ended_child()) is not None:
            pid, code = child
            if pid == self._group:
                self._code = code
                self._end(ITSELF)  # what it leaves behind may not run without it

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now >= self._until - self._grace:
            self._end(LAPSED)
        if now >= min(self._kill_at, self._until):
            self._send(signal.SIGKILL)

    def _end(self, why: str) -> None:
        """SIGTERM now, SIGKILL after the grace. The first reason counts, and there is no way back."""
        if self._why:
            return
        self._why = why
        self._kill_at = time.monotonic() + self._grace
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)  # one that was stopped would not hear of it

    def _send(self, number: int) -> bool:
        """Send a signal to the group; False where there is none, or nothing of it is left."""
        if not self._group:
            return False
        try:
            os.killpg(self._group, number)
        except ProcessLookupError:
            return False
        except PermissionError:  # all of it is another user's
            return True
        return True

    def _say(self, words: str) -> None:
        try:
            os.write(self._report, f"{words}\n".encode())
        except OSError:
            return  # nobody is left to hear it


def status_of(code: int) -> int:
    """The exit status as a shell has it: of what died of a signal, 128 and the signal's number."""
    return 128 - code if code < 0 else code


def _ended_child() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _woken_by_signals() -> int:
    """A pipe that can be read from when a signal has come: that a child has ended, too.

    What a terminal or a supervisor sends to every process is the parent's business, and does nothing here. It is not
    ignored, since the command would inherit that.
    """
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _nothing)
    signal.signal(signal.SIGCHLD, _nothing)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    return woken


def _drain(pipe: int) -> None:
    os.read(pipe, 65536)


def _nothing(*_: object) -> None:
    """A handler: that the signal woke us is all there is to it."""


def _dying_with(guardian: int) -> Callable[[], None]:
    """What the command does before it begins: it asks to be killed when its guardian ends."""
    if sys.platform != "linux":
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # the group's orphans come to us, so that none is left a zombie

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != guardian:  # it ended before it was asked
            os.kill(os.getpid(), signal.SIGKILL)

    return ask


def main(arguments: list[str]) -> None:
    """The program: CONTROL REPORT GRACE UNTIL COMMAND..."""
    control, report = int(arguments[0]), int(arguments[1])
    for pipe in (control, report):
        os.set_inheritable(pipe, False)  # noqa: FBT003  it takes no keywords
    Guardian(control, report, grace=float(arguments[2]), until=float(arguments[3])).run(arguments[4:])


if __name__ == "__main__":
    main(sys.argv[1:])
