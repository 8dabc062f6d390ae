"""The page on failures is held to the tests: each that it names exists, and each that there is stands in a row."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "failures.md"
#: What tests a tool of ours, and the page itself.
NOT_FAULTS = {"test_proxy.py", "test_failures_page.py"}

_NAME = re.compile(r"`(?P<file>test_\w+\.py)(?:::(?P<test>\w+))?(?:\[(?P<case>[^]]+)])?`")
_NODE = re.compile(r"(?:.*/)?(?P<file>\w+\.py)::(?P<test>\w+)(?:\[(?P<case>.+)])?")

Name = tuple[str, str, str]


def names_on_the_page() -> Iterator[Name]:
    """File, test and case of every name in the last column of a row; empty where it is all of them."""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("| ") and "`test_" in line:
            for found in _NAME.finditer(line.rsplit(" | ", 1)[1]):
                yield found["file"], found["test"] or "", found["case"] or ""


@cache
def collected() -> frozenset[Name]:
    """As pytest collects them."""
    listing = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "--no-header", str(HERE)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = (_NODE.fullmatch(line) for line in listing.stdout.splitlines())
    return frozenset((node["file"], node["test"], node["case"] or "") for node in found if node)


def is_named(test: Name, name: Name) -> bool:
    return all(said in ("", real) for said, real in zip(name, test, strict=True))


def test_what_the_page_names_exists() -> None:
    """A name without a test means every test of the file; with a case, every test that has the case."""
    names = set(names_on_the_page())

    assert names
    assert [name for name in names if not any(is_named(test, name) for test in collected())] == []


def test_every_test_of_a_fault_stands_in_a_row() -> None:
    names = set(names_on_the_page())

    left_out = {test for test in collected() if not any(is_named(test, name) for name in names)}

    assert sorted(test for test in left_out if test[0] not in NOT_FAULTS) == []


def test_every_row_names_a_test() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]

    assert rows
    assert [
        row for row in rows if not (row.startswith("| what happens |") or _NAME.search(row.rsplit(" | ", 1)[1]))
    ] == []
