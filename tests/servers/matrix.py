"""The matrix: each kind of set-up on each server, a run of pytest for each cell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree as ET

from tests.servers.binaries import binary
from tests.servers.cells import VARIABLE, Cell

ROOT = Path(__file__).resolve().parents[2]
#: The suite of every store, and the three uses with a real worker and two real beats.
TESTS = ("tests/contract", "tests/servers/test_at_work.py")

_KIND, _CELL = 16, 14


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        passed: how many tests.
        failed: the names of those that did not, those that were skipped among them.
        why_not: why the cell was not run; empty: it was.
    """

    passed: int = 0
    failed: tuple[str, ...] = ()
    why_not: str = ""


def run(cell: Cell) -> Outcome:
    """Run the tests of a cell."""
    if why_not := cell.why_not():
        return Outcome(why_not=why_not)
    with TemporaryDirectory(prefix="servers-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "server", f"--junitxml={report}", *TESTS]
        environment = {**os.environ, VARIABLE: str(cell), "CI": "true"}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            return Outcome(failed=(ended.stdout + ended.stderr,))
        return _read(report)


def _read(report: Path) -> Outcome:
    tests = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314  pytest's own
    failed = tuple(f"{test.get('classname')}::{test.get('name')}" for test in tests if len(test))
    return Outcome(passed=len(tests) - len(failed), failed=failed)


def table(outcomes: Mapping[Cell, Outcome]) -> str:
    """The outcomes, a line for each kind and a column for each server, with the reasons below."""
    servers = list(dict.fromkeys(cell.server for cell in outcomes))
    reasons = list(dict.fromkeys(outcome.why_not for outcome in outcomes.values() if outcome.why_not))
    head = " " * _KIND + "".join(f"{binary(server).title:>{_CELL}}" for server in servers)
    notes = [f"({number}) {reason}" for number, reason in enumerate(reasons, start=1)]
    return "\n".join([head, *_lines(outcomes, servers, reasons), *(["", *notes] if notes else [])])


def _lines(outcomes: Mapping[Cell, Outcome], servers: Sequence[str], reasons: Sequence[str]) -> Iterator[str]:
    for kind in dict.fromkeys(cell.kind for cell in outcomes):
        cells = (_said(outcomes.get(Cell(kind, server)), reasons) for server in servers)
        yield f"{kind:<{_KIND}}" + "".join(f"{said:>{_CELL}}" for said in cells)


def _said(outcome: Outcome | None, reasons: Sequence[str]) -> str:
    if outcome is None:
        return ""
    if outcome.why_not:
        return f"({reasons.index(outcome.why_not) + 1})"
    return f"{len(outcome.failed)} FAILED" if outcome.failed else str(outcome.passed)
