"""The page on endings is the table that these tests hold the library to."""

from __future__ import annotations

import runpy
from pathlib import Path

from endings_table import ENDINGS, cells

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_on_endings_is_what_the_table_makes() -> None:
    program = runpy.run_path(str(DOCS / "endings_page.py"))

    assert program["PAGE"].read_text(encoding="utf-8") == program["page"](), "run: python -m docs.endings_page"


def test_every_ending_has_a_name_of_its_own_and_a_place() -> None:
    assert len({ending.name for ending in ENDINGS}) == len(ENDINGS)
    assert {cell.ending.name for cell in cells()} == {ending.name for ending in ENDINGS}
