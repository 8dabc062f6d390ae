"""Load, and strikes at what is loaded, again and again: promotions, deaths, pauses, reshardings.

    python -m tests.servers.load --seconds 240 --seed 7

prints what the judge found after each. `load_members` are those who compete, `load_judge` is the judge.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator

from redis.crc import key_slot

from tests.servers.load_judge import Verdict
from tests.servers.load_members import Load, store_at
from tests.servers.local_cluster import LocalCluster
from tests.servers.local_sentinel import LocalSentinel

_KEYS = [f"cluster:{n}" for n in range(6)]


def _sentinel_rounds(chance: random.Random, seconds: float) -> Iterator[tuple[str, Verdict]]:
    """Promotions of every kind, under a load that asks as many replicas to confirm as it takes."""
    with LocalSentinel() as sentinel:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            kind = chance.choice(["death", "by hand", "asleep", "behind"])
            # A promotion by hand leaves the old primary its other replica for a moment: all of them have to confirm.
            confirm = {"death": 0, "by hand": 2}.get(kind, 1)
            sentinel.mend()
            with Load(lambda: store_at(sentinel.url, min_replicas=confirm, timeout=1.0), _KEYS) as load:  # noqa: B023
                _promote(sentinel, kind)
                load.wait_until_all_ran(time.monotonic())
                yield f"sentinel, {kind}", load.finish()


def _promote(sentinel: LocalSentinel, kind: str) -> None:
    old = sentinel.primary
    match kind:
        case "by hand":
            sentinel.promote()
            return
        case "asleep":
            old.pause()
        case "behind":
            sentinel.cut_replication()
            time.sleep(1.0)  # of leases that nobody confirms
            old.kill()
        case _:
            old.kill()
    sentinel.wait_for_new_primary(old)
    old.wake()


def _cluster_rounds(chance: random.Random, seconds: float) -> Iterator[tuple[str, Verdict]]:
    """Deaths and reshardings, under load."""
    with LocalCluster() as cluster:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            kind = chance.choice(["death", "asleep", "resharding"])
            cluster.mend()
            confirm = int(kind == "asleep")
            with Load(lambda: store_at(cluster.url, min_replicas=confirm, timeout=1.0), _KEYS) as load:  # noqa: B023
                if kind == "resharding":
                    _reshard(cluster, chance)
                else:
                    _lose_a_primary(cluster, chance, asleep=kind == "asleep")
                load.wait_until_all_ran(time.monotonic())
                yield f"cluster, {kind}", load.finish()


def _reshard(cluster: LocalCluster, chance: random.Random) -> None:
    for _ in range(20):
        slot = _slot_of(chance.choice(_KEYS))
        to = chance.choice([node for node in cluster.primaries if node is not cluster.primary_of(slot)])
        cluster.begin_migration(slot, to)
        time.sleep(chance.uniform(0.0, 0.3))  # of acts that find it half moved
        cluster.finish_migration(slot, to)


def _lose_a_primary(cluster: LocalCluster, chance: random.Random, *, asleep: bool) -> None:
    slot = _slot_of(chance.choice(_KEYS))
    lost = cluster.primary_of(slot)
    if asleep:
        lost.pause()
    else:
        lost.kill()
    cluster.wait_for_heir(lost, slot)
    cluster.mend()


def _slot_of(key: str) -> int:
    return key_slot(f"lock:{{coord:{key}}}".encode())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.load", description="Load, and strikes at it.")
    parser.add_argument("--seconds", type=float, default=240.0, help="how long in all")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    objections = 0
    for rounds in (_sentinel_rounds, _cluster_rounds):
        for name, verdict in rounds(random.Random(chosen.seed), chosen.seconds / 2):
            print(f"{name}: {len(verdict.objections) or 'no'} objections", flush=True)
            for objection in verdict.objections:
                print(f"    {objection}", flush=True)
            objections += len(verdict.objections)
    return 1 if objections else 0


if __name__ == "__main__":
    sys.exit(main())
