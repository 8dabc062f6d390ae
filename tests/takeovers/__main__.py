"""``python -m tests.takeovers``: let leaders end, count every instant, and print what was found."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.takeovers.disasters import BEATS, take_over
from tests.takeovers.figures import report
from tests.takeovers.judge import judge
from tests.takeovers.project import TTL


def main() -> int:
    """0: all is well; 1: something is wrong, and the folder of the beats is kept."""
    arguments = _arguments()
    folder = Path(tempfile.mkdtemp(prefix="takeovers-"))
    print(f"seed {arguments.seed}, in {folder}", flush=True)
    began = time.monotonic()
    try:
        history = take_over(arguments.count, random.Random(arguments.seed), folder)
    except AssertionError as error:
        print(error, file=sys.stderr)
        return 1
    (folder / "log.txt").write_text("\n".join(map(str, (*history.log, *history.struck))), encoding="utf-8")
    verdict = judge(history)
    minutes = (time.monotonic() - began) / 60
    heading = f"{BEATS} beats, a ttl of {TTL:g} s, seed {arguments.seed}, {minutes:.0f} min on {_cores()}"
    said = f"{heading}\n\n{report(history, verdict)}"
    print(said)
    print(*verdict.excused, *verdict.objections, sep="\n")
    if verdict.objections:
        return 1
    if arguments.save:
        arguments.save.write_text(said + "\n", encoding="utf-8")
    shutil.rmtree(folder)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.takeovers", description="Take-overs, and every instant counted."
    )
    parser.add_argument("--count", type=int, default=20, help="how many leaders end (20)")
    parser.add_argument("--seed", type=int, default=1, help="what happens when (1)")
    parser.add_argument("--save", type=Path, help="write what is printed into this file, if all is well")
    return parser.parse_args()


def _cores() -> str:
    return f"{os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
