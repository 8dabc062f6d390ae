"""No connection is shared over a fork, however a process came to be; and parent and child both work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from local_processes import PATIENCE, wait_until

from celery_coord.testing import LocalServer
from tests.processes.connections import Watcher, shared
from tests.processes.forking import SEVERAL, WAYS

pytestmark = pytest.mark.server

ROOT = Path(__file__).resolve().parents[2]
CHILDREN = {"a preforking server": SEVERAL, "os.fork with busy threads": 4 * SEVERAL}


class Play:
    """One parent with its children, while they live."""

    def __init__(self, how: str, server: LocalServer, folder: Path) -> None:
        self._folder = folder
        self._output = (folder / "output.txt").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes.forking", how, server.url, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def said(self, who: str) -> list[dict[str, Any]]:
        told = self._folder / "said.jsonl"
        written = told.read_text().rpartition("\n")[0] if told.exists() else ""  # the last line may still be written
        lines = [json.loads(line) for line in written.splitlines()]
        return [line for line in lines if line["who"] == who]

    def wait_for(self, who: str, times: int) -> list[dict[str, Any]]:
        """Until so many have said something; what they said."""

        def is_said() -> bool:
            return len(self.said(who)) >= times or self._process.poll() is not None

        wait_until(is_said, f"{times} times {who}; {self.output}")
        assert len(self.said(who)) >= times, self.output
        return self.said(who)

    @property
    def output(self) -> str:
        return (self._folder / "output.txt").read_text(errors="replace")

    def go(self) -> None:
        (self._folder / "go").touch()

    def end(self) -> None:
        self.go()  # children that are nobody's any more end as well
        try:
            status = self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._output.close()
        assert status == 0, self.output


@pytest.fixture
def watcher(server: LocalServer) -> Iterator[Watcher]:
    found = Watcher(server)
    yield found
    found.close()


@pytest.mark.parametrize("how", WAYS)
def test_parent_and_child_have_connections_of_their_own_and_both_work(
    how: str, server: LocalServer, watcher: Watcher, tmp_path: Path
) -> None:
    """No connection is shared over a fork: what one process asks, no other one reads the answer of."""
    watcher.client.flushall()
    play = Play(how, server, tmp_path)
    try:
        children = play.wait_for("child", CHILDREN.get(how, 1))
        [before], [parent] = play.said("before"), play.wait_for("parent", 1)
        listed = watcher.ports()
    finally:
        play.end()
    [after] = play.said("after")

    ports = {said["pid"]: set(said["ports"]) for said in (parent, *children)}
    assert shared(ports) == set()
    assert all(found and found <= listed for found in ports.values())
    assert set(before["ports"]) <= set(parent["ports"])  # a child that let go of its copy has ended none of them
    for said in (before, parent, *children, after):
        assert said["got"]["saw its lock"]
        assert said["got"]["ran in"] == said["pid"]
        assert said["got"]["sees the leader"] == before["got"]["sees the leader"]
        assert said["got"]["leads"] == (said["who"] != "child")
