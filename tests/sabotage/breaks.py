"""One break: what is taken out of the library, and which tests must notice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "celery_coord"


@dataclass(frozen=True)
class Break:
    """One safety check, taken out.

    Attributes:
        name: what is broken, in a few words; unique.
        guards: the promise that the check guards, beginning with its number where it has one.
        file: where the check is, from the package's folder on.
        old: the text that goes; it stands there once.
        new: what comes in its place.
        tests: pytest's ids of the tests that must fail then, each of them.
    """

    name: str
    guards: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def path(self, root: Path) -> Path:
        return root / PACKAGE / self.file

    def apply(self, root: Path) -> None:
        path = self.path(root)
        path.write_text(path.read_text(encoding="utf-8").replace(self.old, self.new), encoding="utf-8")

    def stale(self, root: Path) -> list[str]:
        """Why it fits the code no more; empty where it does."""
        found = self.path(root).read_text(encoding="utf-8").count(self.old)
        reasons = [] if found == 1 else [f"{self.name}: its text stands {found} times in {self.file}, not once"]
        return reasons + [f"{self.name}: there is no {test}" for test in self.tests if not _is_there(root, test)]


def stale(breaks: Sequence[Break], root: Path) -> list[str]:
    """Why some of the breaks fit the code no more."""
    names = [broken.name for broken in breaks]
    twice = [f"{name}: two breaks have this name" for name in sorted(set(names)) if names.count(name) > 1]
    return twice + [reason for broken in breaks for reason in broken.stale(root)]


def _is_there(root: Path, test: str) -> bool:
    file, _, name = test.partition("::")
    path = root / file
    return path.exists() and bool(re.search(rf"^def {name.partition('[')[0]}\(", path.read_text("utf-8"), re.MULTILINE))
