"""`celery coord` at a site: commands that are run to their end, and commands that the leader alone runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import coord_project
import psutil
from coord_site import Site
from local_processes import HERE, CeleryProcess, wait_until

NAME = "pump"


def coord(*arguments: str) -> list[str]:
    """``celery -A coord_project coord ARGUMENTS``."""
    return [sys.executable, "-m", "celery", "-A", "coord_project", "coord", *arguments]


def environment(site: Site, **conf: Any) -> dict[str, str]:
    """What a command finds at a site, with settings that differ from the site's."""
    settings = {coord_project.URL: site.server.url, coord_project.CONF: json.dumps({**site.conf, **conf})}
    return {**os.environ, "PYTHONPATH": str(HERE), **settings}


def run_coord(site: Site, *arguments: str, stdin: str = "", **conf: Any) -> subprocess.CompletedProcess[str]:
    """``celery coord ARGUMENTS``, run to its end."""
    return subprocess.run(
        coord(*arguments),
        env=environment(site, **conf),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Lively:
    """Copies of `coord run` with a command that says that it lives, all into one file.

    Args:
        site: where they run.
        folder: where the file is.
        ttl: of their leases, in seconds.
    """

    def __init__(self, site: Site, folder: Path, ttl: float) -> None:
        self._site = site
        self._file = folder / "lives.txt"
        self._ttl = ttl

    def arguments(self, *words: str, options: Sequence[str] = ()) -> list[str]:
        """What stands behind ``celery coord``."""
        run = ["run", "--name", NAME, "--ttl", str(self._ttl), *options, "--"]
        return [*run, sys.executable, "-I", "-S", str(HERE / "lively.py"), str(self._file), *words]

    def start(self, *words: str, options: Sequence[str] = (), **conf: Any) -> CeleryProcess:
        """Start a copy; it leads or follows."""
        return self._site.celery("coord", *self.arguments(*words, options=options), **conf)

    def start_leader(self, *words: str, options: Sequence[str] = (), **conf: Any) -> CeleryProcess:
        """Start a copy that leads, and wait until its command lives, with all its family."""
        leader = self.start(*words, options=options, **conf)
        members = 2 if "family" in words else 1
        wait_until(lambda: len(self.pids()) >= members, "a living command")
        return leader

    def start_pair(self, *words: str, **conf: Any) -> tuple[CeleryProcess, CeleryProcess]:
        """A copy that leads, and one that follows."""
        leader = self.start_leader(*words, **conf)
        follower = self.start(*words, **conf)
        follower.wait_for("following")
        return leader, follower

    def said(self) -> list[dict[str, Any]]:
        """All that was said, in order; a line that is being written does not count."""
        text = self._file.read_text() if self._file.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def heard(self, word: str) -> int:
        """How often a word was said."""
        return [line["word"] for line in self.said()].count(word)

    def terms(self) -> list[int]:
        """The terms in which a command has lived, in order."""
        return sorted({line["term"] for line in self.said()})

    def pids(self) -> list[int]:
        """The processes of the last term's command."""
        return sorted({line["pid"] for line in self.said() if line["term"] == self.terms()[-1]})

    def wait_for_terms(self, count: int, *, timeout: float = 30.0) -> None:
        """Until a command has lived in so many terms."""
        wait_until(lambda: len(self.terms()) >= count, f"{count} terms", timeout=timeout)

    def last_sign(self, term: int) -> float:
        """When the command of a term last said something, on this machine's monotonic clock."""
        return max(line["at"] for line in self.said() if line["term"] == term)

    def first_sign(self, term: int) -> float:
        """When the command of a term first said something."""
        return min(line["at"] for line in self.said() if line["term"] == term)

    def never_overlapped(self) -> bool:
        """Whether the commands of any two terms lived one after the other."""
        return all(self.last_sign(before) < self.first_sign(after) for before, after in pairwise(self.terms()))

    def end(self) -> None:
        """Nothing that says that it lives is left, whatever went wrong."""
        for pid in {line["pid"] for line in self.said()}:
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                if str(self._file) in process.cmdline():  # and not somebody else's by now
                    process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def guardian_of(process: CeleryProcess) -> psutil.Process:
    """The process between `coord run` and its command."""
    [guardian] = psutil.Process(process.pid).children()
    return guardian


def wait_until_dead(pids: Sequence[int], *, timeout: float = 30.0) -> None:
    """Until none of these processes runs any more; one that nobody has asked how it ended is dead, too."""
    wait_until(lambda: not any(map(lives, pids)), f"the end of {pids}", timeout=timeout)


def lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
