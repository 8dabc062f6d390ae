"""The walk-through of the README, walked through: its files, its commands and its dialogue, as they stand there.

Only the port is another one, since somebody may sit on the printed one, and what need not be waited for is shorter.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from pages import QUICKSTART, blocks_of

from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server

_LEADER_TTL = 6
#: In place of 20 s: until the test lets it end.
_BODY = "while not Path('go').exists(): time.sleep(0.05)"
#: In place of a second.
_TAKEN = "while not refresh.look('west'): time.sleep(0.05)"
_PATIENCE = 45.0


@pytest.fixture
def folder(tmp_path: Path, server: LocalServer, redis_url: str) -> Path:
    """The reader's folder, with the file that the walk-through has them write."""
    [tasks] = blocks_of(QUICKSTART, "python")
    text = tasks.text.replace("6390", str(server.port)).replace("time.sleep(20)", _BODY)
    (tmp_path / "tasks.py").write_text(f"from pathlib import Path\n{text}app.conf.coord_leader_ttl = {_LEADER_TTL}\n")
    return tmp_path


def _command(word: str) -> list[str]:
    """The one printed command that starts a worker, or a beat."""
    lines = [line for block in blocks_of(QUICKSTART, "console") for line in block.text.splitlines()]
    [line] = [line for line in lines if f" {word} " in line]
    program, *arguments = shlex.split(line)
    return [sys.executable, "-m", program, *arguments]


@contextmanager
def _started(word: str, folder: Path, log: str) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / log).open("wb") as output:
        process = subprocess.Popen(_command(word), cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def _until_it_says(log: Path, words: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not _says(log, words):
        assert time.monotonic() < deadline, f"{log.name} never said {words!r}, but:\n{log.read_text(errors='replace')}"
        time.sleep(0.05)


def _says(log: Path, words: str) -> bool:
    return words in log.read_text(errors="replace")


def test_the_dialogue_of_the_quickstart_is_what_python_answers(folder: Path) -> None:
    [dialogue] = blocks_of(QUICKSTART, "pycon")
    assert "time.sleep(1) " in dialogue.text
    (folder / "dialogue.txt").write_text(dialogue.text.replace("time.sleep(1) ", _TAKEN))

    with _started("worker", folder, "worker.log"):
        _until_it_says(folder / "worker.log", " ready.")
        with subprocess.Popen(
            [sys.executable, "-m", "doctest", "-o", "ELLIPSIS", "dialogue.txt"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as walking:
            try:
                _until_it_says(folder / "worker.log", "tasks.refresh(cluster=west) is held")
                (folder / "go").touch()
                said, _ = walking.communicate(timeout=60)
            finally:
                walking.kill()

    assert walking.returncode == 0, said
    drops = re.findall(r"\] dropped: tasks\.refresh\(cluster=west\) is (\w+)", (folder / "worker.log").read_text())
    assert drops == ["held", "cooling"]


def test_of_the_two_beats_of_the_quickstart_one_leads_and_the_other_takes_over(folder: Path) -> None:
    logs = {name: folder / f"{name}.log" for name in ("first", "second", "third")}

    with ExitStack() as beats:
        first = beats.enter_context(_started("beat", folder, "first.log"))
        _until_it_says(logs["first"], "beat: elected")
        second = beats.enter_context(_started("beat", folder, "second.log"))
        _until_it_says(logs["second"], "beat: Starting")
        _until_it_says(logs["first"], "Sending due task refresh-west")
        assert not _says(logs["second"], "elected")

        first.send_signal(signal.SIGINT)
        _until_it_says(logs["second"], "beat: elected")
        _until_it_says(logs["second"], "Sending due task refresh-west")
        _until_it_says(logs["first"], "beat: resigned")

        beats.enter_context(_started("beat", folder, "third.log"))
        _until_it_says(logs["third"], "beat: Starting")
        second.kill()
        _until_it_says(logs["third"], "beat: elected")
        assert not _says(logs["second"], "beat: resigned")
