"""``python -m benchmarks``: measure, and print the report."""

from __future__ import annotations

import argparse
import sys

import redis

from benchmarks import replicas
from benchmarks.report import report
from benchmarks.variants import VARIANTS, Variant
from benchmarks.worker import TURN, Times, Worker
from celery_coord.testing import LocalServer

ROUNDS, TURNS = 5, 24
QUICK_ROUNDS, QUICK_TURNS = 2, 2


def main() -> None:
    """Start a server and a worker, measure, and print the report."""
    rounds, turns = (QUICK_ROUNDS, QUICK_TURNS) if _arguments().quick else (ROUNDS, TURNS)
    with LocalServer() as server, Worker(server.url) as worker:
        worker.round(_turns(QUICK_TURNS))  # connections, scripts and caches are there before the first round
        times = [_round(worker, number, rounds, turns) for number in range(rounds)]
        print(report(times, tasks=turns * TURN, server=_server_version(server.url)))
    print(f"\n{replicas.report(turns)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What coordination costs.")
    parser.add_argument("--quick", action="store_true", help="few tasks and rounds: to see that it runs, not how fast")
    return parser.parse_args()


def _round(worker: Worker, number: int, rounds: int, turns: int) -> Times:
    print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return worker.round(_turns(turns, first=number))


def _turns(turns: int, first: int = 0) -> list[Variant]:
    """So many turns of each variant; each time around another one begins."""
    starts = [number % len(VARIANTS) for number in range(first, first + turns)]
    return [variant for start in starts for variant in (*VARIANTS[start:], *VARIANTS[:start])]


def _server_version(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        about = client.info("server")
    if "valkey_version" in about:
        return f"Valkey {about['valkey_version']}"
    return f"Redis {about['redis_version']}"


if __name__ == "__main__":
    main()
