"""The pages of README and docs, and the blocks of code in them.

What is fenced as ``python`` is run, in order, in one namespace a page; what is fenced as ``pycon`` is run as a doctest
in the same namespace. Everything else is for reading.

    python pages.py PAGE ADDRESS        runs the code of one page, in a process of its own
"""

from __future__ import annotations

import doctest
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from celery import Celery

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
QUICKSTART = ROOT / "docs" / "quickstart.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))

#: The address that the pages print; a test puts that of its own server in its place.
PRINTED_ADDRESS = "redis://127.0.0.1:6379/0"

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = ("python", "pycon")
#: The dialogues of these are with a worker: see test_walk_through.py.
_WALKED = (README, QUICKSTART)


@dataclass(frozen=True)
class Block:
    """One fenced block: its kind, its text, and the line that it begins on, counted from 0."""

    kind: str
    text: str
    line: int


def blocks_of(page: Path, *kinds: str) -> list[Block]:
    return [block for block in _blocks(page.read_text(encoding="utf-8")) if block.kind in (kinds or _CODE)]


def _blocks(text: str) -> Iterator[Block]:
    for match in _FENCE.finditer(text):
        yield Block(match[1], match[2], text[: match.start(2)].count("\n"))


def needs_server(page: Path) -> bool:
    return any(PRINTED_ADDRESS in block.text or "LocalServer(" in block.text for block in blocks_of(page))


def run_page(page: Path, address: str) -> None:
    """Run the code of a page in order, and make Celery make every task that it defines."""
    namespace: dict[str, Any] = {"__name__": "fleet"}
    for block in blocks_of(page, *(_CODE[:1] if page in _WALKED else _CODE)):
        run_block(page, replace(block, text=block.text.replace(PRINTED_ADDRESS, address)), namespace)
    for value in namespace.values():
        if isinstance(value, Celery):
            value.finalize()


def run_block(page: Path, block: Block, namespace: dict[str, Any]) -> None:
    if block.kind == "pycon":
        _run_doctest(page, block, namespace)
    else:
        # The empty lines put the page's own line numbers into a traceback.
        exec(compile("\n" * block.line + block.text, str(page), "exec"), namespace)  # noqa: S102  the project's own


def _run_doctest(page: Path, block: Block, namespace: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(block.text, namespace, page.name, str(page), block.line)
    test.globs = namespace  # the one namespace of the page, not a copy
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    if runner.run(test, out=sys.stderr.write, clear_globs=False).failed:
        raise AssertionError(f"{page.name} prints what is not so")


def table_rows(page: Path) -> list[list[str]]:
    """The cells of every row of every table of a page, the heads left out."""
    lines = page.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows]


if __name__ == "__main__":
    run_page(Path(sys.argv[1]), sys.argv[2])
