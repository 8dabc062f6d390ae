"""``python -m tests.servers``: every kind of set-up on every server, and a table of what passed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import celery
import redis

from celery_coord.testing import ServerMissing
from tests.servers.binaries import WANTED, binary
from tests.servers.cells import Cell, every
from tests.servers.matrix import Outcome, run, table


def main() -> int:
    """0: all passed; 1: something did not; 2: a server is missing, or no cell has such a name."""
    arguments = _arguments()
    cells = [cell for cell in every() if not arguments.words or any(word in str(cell) for word in arguments.words)]
    try:
        for server in WANTED:
            binary(server)
    except ServerMissing as missing:
        print(missing, file=sys.stderr)
        return 2
    if not cells:
        print("no cell has such a name", file=sys.stderr)
        return 2
    began = time.monotonic()
    outcomes: dict[Cell, Outcome] = {}
    for cell in cells:
        outcomes[cell] = run(cell)
        print(f"{cell}: {outcomes[cell].why_not or f'{outcomes[cell].passed} passed'}", flush=True)
        for name in outcomes[cell].failed:
            print(f"  FAILED {name}", flush=True)
    minutes = (time.monotonic() - began) / 60
    libraries = f"Celery {celery.__version__}, redis-py {redis.__version__}"
    said = f"{libraries}, {minutes:.0f} min on {os.cpu_count()} cores\n\n{table(outcomes)}"
    print(f"\n{said}")
    if any(outcome.failed for outcome in outcomes.values()):
        return 1
    if arguments.save and not arguments.words:
        arguments.save.write_text(said + "\n", encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.servers",
        description="The suite of every store, and a worker and two beats, at every kind of set-up on every server.",
    )
    parser.add_argument("words", nargs="*", help="only the cells with one of these words in their name")
    parser.add_argument("--save", type=Path, help="write the table into this file, if all of it has passed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
