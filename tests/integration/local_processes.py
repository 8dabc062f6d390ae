"""Celery's own commands as processes, with what they print kept for the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar

T = TypeVar("T")

HERE = Path(__file__).parent
PATIENCE = 30.0
#: What an orderly end may take: children of prefork wait for half a minute where the results that they sent last are
#: not read any more.
LONGEST_END = 90.0


def wait_until(find: Callable[[], T], what: str, *, timeout: float = PATIENCE) -> T:
    """Look again and again until there is something.

    Args:
        find: what to look with.
        what: what is waited for, in words.
        timeout: for how long, in seconds.

    Returns:
        The first thing found that is true.

    Raises:
        AssertionError: it was not found in time.
    """
    deadline = time.monotonic() + timeout
    while not (found := find()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain: {what}"
        time.sleep(0.02)
    return found


def soonest(measure: Callable[[], float], most: float, *, tries: int = 3) -> float:
    """The shortest of several times; where the first one is short enough, that.

    A machine that lets a process wait makes each of them longer, and none shorter. So what never comes in time is late.

    Args:
        measure: arranges all anew, and returns how long it took.
        most: how long it may take.
        tries: how often it is measured at most.
    """
    times = [measure()]
    while min(times) > most and len(times) < tries:
        times.append(measure())
    return min(times)


def _importable() -> str:
    """Where a process finds the applications beside this file, what all tests share, and what we were told to find."""
    return os.pathsep.join(filter(None, [str(HERE), str(HERE.parents[1]), os.environ.get("PYTHONPATH")]))


class CeleryProcess:
    """``python -m celery ARGUMENTS``, in a folder of its own and a process group of its own.

    Args:
        folder: where it runs, and where its output is kept.
        arguments: what stands behind ``celery``.
        environment: variables that it gets beside ours.
    """

    def __init__(self, folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "celery", *arguments],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": _importable(), "PYTHONUNBUFFERED": "1", **environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text(errors="replace")

    def wait_for(self, text: str, *, timeout: float = PATIENCE) -> None:
        """Until it has printed this."""

        def said_or_ended() -> bool:
            return text in self.output or self._process.poll() is not None

        wait_until(said_or_ended, f"{text!r} in the output:\n{self.output}", timeout=timeout)
        assert text in self.output, f"ended without {text!r}:\n{self.output}"

    def wait(self, timeout: float = LONGEST_END) -> int:
        """Until it has ended by itself.

        Returns:
            Its exit code.
        """
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs; it said:\n{self.output}") from None

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        """Stop it and all its children; may be called twice."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._kill_group()
        self._process.wait()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
