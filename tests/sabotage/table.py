"""The breaks as a table in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.sabotage.breaks import PACKAGE, Break


def table(breaks: Sequence[Break]) -> str:
    return "\n".join(["| break | guards | in | noticed by |", "|---|---|---|---|", *_rows(breaks)])


def _rows(breaks: Sequence[Break]) -> Iterator[str]:
    for broken in breaks:
        tests = "<br>".join(f"`{test}`" for test in broken.tests)
        yield f"| {broken.name} | {broken.guards} | `{PACKAGE}/{broken.file}` | {tests} |"
