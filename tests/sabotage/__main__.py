"""``python -m tests.sabotage``: break, test, mend, and say what was not noticed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.sabotage.breaks import Break, stale
from tests.sabotage.checkout import Checkout, NotRun
from tests.sabotage.in_leaders import IN_LEADERS
from tests.sabotage.in_processes import IN_PROCESSES
from tests.sabotage.in_runs import IN_RUNS
from tests.sabotage.in_stores import IN_STORES
from tests.sabotage.table import table

ROOT = Path(__file__).resolve().parents[2]
BREAKS = (*IN_STORES, *IN_RUNS, *IN_PROCESSES, *IN_LEADERS)


def main() -> int:
    """0: each break was noticed; 1: one was not; 2: that could not be found out."""
    arguments = _arguments()
    breaks = [broken for broken in BREAKS if _is_meant(broken, arguments.words)]
    if reasons := stale(breaks, ROOT):
        print(*reasons, sep="\n", file=sys.stderr)
        return 2
    if arguments.list:
        print(table(breaks))
        return 0
    if not breaks:
        print("no break has such a name", file=sys.stderr)
        return 2
    with Checkout(ROOT) as copy:
        try:
            _make_sure(copy, breaks)
            return _break_each(copy, breaks)
        except NotRun as error:
            print(error, file=sys.stderr)
            return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sabotage", description="Break the library on purpose: a test must fail each time."
    )
    parser.add_argument("words", nargs="*", help="only the breaks with one of these words in their name")
    parser.add_argument("--list", action="store_true", help="print them as a table in Markdown, and break nothing")
    return parser.parse_args()


def _is_meant(broken: Break, words: Sequence[str]) -> bool:
    return not words or any(word in broken.name for word in words)


def _make_sure(copy: Checkout, breaks: Sequence[Break]) -> None:
    """The tests run on the copy, and pass there."""
    found = copy.imported_from()
    print(f"tested is {found}", flush=True)
    if not found.is_relative_to(copy.root):
        raise NotRun("that is not the copy")
    tests = sorted({test for broken in breaks for test in broken.tests})
    verdict = copy.test(tests)
    if verdict.failed:
        raise NotRun(f"they fail before anything is broken: {', '.join(verdict.failed)}")
    print(f"unbroken: {len(tests)} tests pass", flush=True)


def _break_each(copy: Checkout, breaks: Sequence[Break]) -> int:
    began, unnoticed, undecided = time.monotonic(), 0, 0
    for number, broken in enumerate(breaks, start=1):
        try:
            with copy.broken(broken):
                missed = copy.test(broken.tests).missed_by(broken.tests)
        except NotRun as error:
            undecided += 1
            said = f"NOT RUN: {error}"
        else:
            unnoticed += bool(missed)
            said = f"NOT CAUGHT by {', '.join(missed)}" if missed else f"caught by {', '.join(broken.tests)}"
        print(f"{number:3} {broken.name}: {said}", flush=True)
    minutes = (time.monotonic() - began) / 60
    caught = len(breaks) - unnoticed - undecided
    print(f"{len(breaks)} breaks: {caught} caught, {unnoticed} not caught, {undecided} not run; {minutes:.0f} min")
    return 2 if undecided else min(unnoticed, 1)


if __name__ == "__main__":
    sys.exit(main())
