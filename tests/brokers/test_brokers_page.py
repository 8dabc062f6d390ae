"""The page on brokers shows what these tests hold the library to."""

from __future__ import annotations

from pathlib import Path

from brokers_table import BROKERS, CLAIMS, tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "brokers.md"


def test_the_page_on_brokers_shows_the_table_of_the_tests() -> None:
    assert tables() in PAGE.read_text(encoding="utf-8")


def test_a_limit_is_one_of_what_is_claimed() -> None:
    assert {claim for broker in BROKERS.values() for claim in broker.limits} <= set(CLAIMS)
