"""A copy of the checkout, in which the library can be broken and tested."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

from tests.sabotage.breaks import PACKAGE, Break

#: A break may make a test wait for what never comes: it fails then.
_LONGEST_TEST = 60
_ALL_PASSED, _SOME_FAILED = 0, 1


class NotRun(Exception):
    """The tests could not be run: that is no verdict on the library."""


@dataclass(frozen=True)
class Verdict:
    """What became of the tests: which of them failed."""

    failed: tuple[str, ...]

    def missed_by(self, tests: Sequence[str]) -> list[str]:
        """Those of the tests that did not fail; of a parametrised one it is enough that it failed once."""
        return [test for test in tests if not any(_is_of(failure, test) for failure in self.failed)]


class Checkout:
    """What is tracked in a checkout, and what is new in it, copied to a folder of its own.

    Args:
        source: the checkout.
    """

    def __init__(self, source: Path) -> None:
        self._folder = TemporaryDirectory(prefix="sabotage-")
        self.root = Path(self._folder.name) / source.name
        for file in _files_of(source):
            target = self.root / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / file, target)

    def imported_from(self) -> Path:
        """Where a process of the copy finds the library."""
        say = f"import {PACKAGE}; print({PACKAGE}.__file__)"
        said = self._run([sys.executable, "-c", say], cwd=Path(self._folder.name))
        return Path(said.stdout.strip())

    @contextmanager
    def broken(self, broken: Break) -> Iterator[None]:
        """While this is entered, the library has the break."""
        path = broken.path(self.root)
        whole = path.read_text(encoding="utf-8")
        broken.apply(self.root)
        try:
            yield
        finally:
            path.write_text(whole, encoding="utf-8")

    def test(self, tests: Sequence[str]) -> Verdict:
        """Run these tests.

        Raises:
            NotRun: pytest did not come to a verdict.
        """
        options = ["-q", "--tb=no", "-rfEs", f"--timeout={_LONGEST_TEST}"]
        done = self._run([sys.executable, "-m", "pytest", *options, *tests], cwd=self.root)
        if done.returncode not in (_ALL_PASSED, _SOME_FAILED):
            raise NotRun(done.stdout + done.stderr)
        if skipped := _after("SKIPPED", done.stdout):
            raise NotRun(f"skipped: {', '.join(skipped)}")
        failed = _after("FAILED", done.stdout)
        if errors := set(_after("ERROR", done.stdout)) - set(failed):  # after a failure it may be a consequence
            raise NotRun(f"not even begun: {', '.join(sorted(errors))}")
        return Verdict(tuple(failed))

    def _run(self, command: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        # No bytecode: a break and its mend may look alike to the cache, which goes by size and second.
        environment = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def _files_of(source: Path) -> list[Path]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True).stdout
    return [Path(name) for name in listed.split("\0") if name and (source / name).is_file()]


def _after(word: str, output: str) -> list[str]:
    """The ids that stand behind a word in pytest's short summary."""
    lines = [line.removeprefix(f"{word} ") for line in output.splitlines() if line.startswith(f"{word} ")]
    return [line.partition(" - ")[0].strip() for line in lines]


def _is_of(failure: str, test: str) -> bool:
    return failure == test or failure.startswith(f"{test}[")
