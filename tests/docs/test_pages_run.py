"""Everything that is printed runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pages
import pytest
from pages import PAGES, PRINTED_ADDRESS, README, Block, blocks_of, needs_server, run_block


def _with_marks(page: Path) -> Any:
    return pytest.param(page, id=page.name, marks=[pytest.mark.server] if needs_server(page) else [])


@pytest.mark.parametrize("page", [_with_marks(page) for page in PAGES if blocks_of(page)])
def test_the_code_of_a_page_runs_in_order(page: Path, request: pytest.FixtureRequest) -> None:
    address = request.getfixturevalue("redis_url") if needs_server(page) else PRINTED_ADDRESS

    ran = subprocess.run(
        [sys.executable, pages.__file__, str(page), address], capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 0, ran.stderr


def test_a_dialogue_that_is_wrong_fails_its_page() -> None:
    wrong = Block("pycon", ">>> 1 + 1\n3\n", 0)

    with pytest.raises(AssertionError, match=r"README\.md prints what is not so"):
        run_block(README, wrong, {})


def test_the_blocks_of_a_page_share_one_namespace() -> None:
    names: dict[str, Any] = {}

    run_block(README, Block("python", "a = 1\n", 0), names)
    run_block(README, Block("pycon", ">>> b = a + 1\n>>> b\n2\n", 3), names)

    assert names["b"] == 2
