"""The benchmark runs; how fast is for people to read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.replicas import CONFIRM
from benchmarks.variants import OTHERS, VARIANTS

pytestmark = [pytest.mark.server, pytest.mark.usefixtures("server")]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report() -> str:
    """What ``python -m benchmarks --quick`` prints."""
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_variant_has_its_row(report: str) -> None:
    rows = report.splitlines()

    assert [variant.title for variant in VARIANTS if not any(row.startswith(variant.title) for row in rows)] == []


def test_what_a_confirmation_by_replicas_costs_has_its_rows(report: str) -> None:
    rows = [line for line in report.splitlines() if line.startswith("coord_min_replicas")]

    assert [row.split()[2] for row in rows] == [str(confirm) for confirm in CONFIRM]


def test_every_other_way_and_the_mark_have_their_verdict(report: str) -> None:
    verdicts = [line.partition(":")[0] for line in report.splitlines() if ": yes (" in line or ": no (" in line]

    assert verdicts == [*(f"below {other.title}" for other in OTHERS), "within 1.3 times the floor"]
