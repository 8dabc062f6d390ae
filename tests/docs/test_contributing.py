"""The page for contributors has the breaks that there are, and none of them has lost its place in the code."""

from __future__ import annotations

import re
import subprocess
import sys

from pages import ROOT

_PAGE = ROOT / "docs" / "contributing.md"


def _listed() -> str:
    command = [sys.executable, "-m", "tests.sabotage", "--list"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert listed.returncode == 0, listed.stderr  # a break is stale, or names a test that is gone
    return listed.stdout


def test_the_table_of_breaks_is_what_the_code_makes() -> None:
    assert _listed() in _PAGE.read_text(encoding="utf-8"), "paste what this prints: python -m tests.sabotage --list"


def test_the_last_run_that_the_page_shows_was_of_all_breaks_and_all_were_caught() -> None:
    breaks = len(_listed().splitlines()) - 2  # the head, and the line below it

    page = _PAGE.read_text(encoding="utf-8")
    ends = re.findall(r"^(\d+) breaks: (\d+) caught, 0 not caught, 0 not run", page, re.MULTILINE)

    assert sum(int(ran) for ran, _ in ends) == sum(int(caught) for _, caught in ends) == breaks


def test_every_command_of_the_makefile_is_on_the_page() -> None:
    commands = re.findall(r'@echo "(make [\w-]+)', (ROOT / "Makefile").read_text(encoding="utf-8"))

    assert [command for command in commands if f"`{command}`" not in _PAGE.read_text(encoding="utf-8")] == []
