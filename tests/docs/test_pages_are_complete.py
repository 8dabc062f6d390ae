"""What there is, is documented, and what is documented is there."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path

import pytest
from pages import PAGES, QUICKSTART, README, ROOT, table_rows

import celery_coord
from celery_coord.options import OPTIONS
from celery_coord.settings import PREFIX, SETTINGS
from celery_coord.signals import SIGNALS

DOCS = ROOT / "docs"
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _text(*pages: Path) -> str:
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def test_the_page_on_settings_is_what_the_settings_make() -> None:
    program = runpy.run_path(str(DOCS / "settings_page.py"))

    assert program["PAGE"].read_text(encoding="utf-8") == program["page"](), "run: python -m docs.settings_page"


def test_every_setting_that_the_readme_names_exists() -> None:
    known = {PREFIX + setting.name for setting in SETTINGS}

    assert set(re.findall(r"`(coord_[a-z_]+)`", _text(*PAGES))) <= known


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_every_relative_link_of_a_page_leads_somewhere(page: Path) -> None:
    links = [link for link in _LINK.findall(_text(page)) if "://" not in link]

    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


def test_every_signal_is_documented_with_its_fields() -> None:
    documented = {row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in table_rows(DOCS / "signals.md")}

    sent = {signal.name: [field.name for field in dataclasses.fields(event)] for event, signal in SIGNALS.items()}
    assert {name: fields for name, fields in documented.items() if name != "signal"} == sent


@pytest.mark.parametrize("name", celery_coord.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert re.search(rf"\b{name}\b", _text(*DOCS.glob("*.md")))


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_a_task_is_documented(option: str) -> None:
    assert option in {row[0].strip("`") for row in table_rows(DOCS / "options.md")}


def _numbered(page: Path) -> dict[str, list[str]]:
    return {row[0]: row[1:] for row in table_rows(page) if row[0].isdecimal()}


def test_the_readme_and_the_guarantees_promise_the_same() -> None:
    promised = _numbered(README)

    assert promised == _numbered(DOCS / "guarantees.md")
    assert {int(number) for number in promised} == set(range(1, 17))


def test_the_readme_says_what_is_not_promised_before_it_says_how_to_install() -> None:
    text = _text(README)

    assert 0 < text.index("## What it is not") < text.index("pip install")


def test_the_quickstart_of_the_readme_and_of_the_site_are_one_text() -> None:
    begin, end = "From an empty folder", "<!-- end of the quickstart -->"
    readme, page = _text(README), _text(QUICKSTART)

    assert readme[readme.index(begin) : readme.index(end)].strip() == page[page.index(begin) :].strip()


def test_every_page_is_in_the_navigation() -> None:
    navigation = _text(ROOT / "mkdocs.yml")

    assert [page.name for page in DOCS.glob("*.md") if f": {page.name}\n" not in navigation] == []


def test_the_page_on_beats_shows_the_last_long_run_of_take_overs() -> None:
    """It is written where it is run, by `make takeovers`; the instants that it excuses are counted, and not listed."""
    printed = (DOCS / "takeovers_output.txt").read_text(encoding="utf-8").splitlines()

    shown = "\n".join(line for line in printed if "was cut off" not in line).strip()
    assert shown in _text(DOCS / "leader-beat.md")
    assert "take-overs         200" in shown
    assert "instants twice     0\ninstants missing   0\n" in shown
