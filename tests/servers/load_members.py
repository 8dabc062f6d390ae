"""Runs that take leases on a few keys, as fast as they get them, while something is done to the servers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Self

from celery_coord import current_lease
from celery_coord.clock import SystemClock
from celery_coord.events import Event
from celery_coord.gate import Admitted, Claim, Ending, Gate, Kind, Unanswered
from celery_coord.lease import Owner
from celery_coord.renewal import Keeper
from celery_coord.stores import Store
from celery_coord.stores.opening import open_store
from celery_coord.stores.redis import RedisStore
from tests.integration.local_processes import wait_until
from tests.servers.load_judge import RAN, REFUSED, UNANSWERED, Body, History, Run, Verdict, judge

#: The ttl of the leases, in seconds: about as long as a promotion takes here, so that some leases live through one.
TTL = 3.0
#: Of so many bodies one is long, and renewed.
ONE_LONG_OF = 50
#: How long a run may take beside its body at the very most, in seconds.
PATIENCE = 30.0

_CLOCK = SystemClock()


def store_at(url: str, *, min_replicas: int = 0, timeout: float = 2.0) -> RedisStore:
    """A store with connections of its own, as a process would open it."""
    store = open_store(
        url, namespace="coord", timeout=timeout, clock=_CLOCK, min_replicas=min_replicas, max_connections=10
    )
    assert isinstance(store, RedisStore)
    return store


class Member:
    """One process's worth: a store with its own connections, a keeper and a gate."""

    def __init__(self, store: Store) -> None:
        self.events: list[Event] = []
        self.store = store
        self.keeper = Keeper(store, _CLOCK, self.events.append)
        self.gate = Gate(store, self.keeper, _CLOCK, self.events.append)


class Load:
    """Some members with some threads each, which run until told to end.

    Args:
        open_store: a new store, for a member of its own.
        keys: what they compete for.
        members: how many there are.
        threads: how many runs each has at a time.
        seed: of what is random.
    """

    def __init__(
        self, open_store: Callable[[], Store], keys: Sequence[str], *, members: int = 2, threads: int = 3, seed: int = 1
    ) -> None:
        self.history = History()
        self.members = [Member(open_store()) for _ in range(members)]
        self._keys = keys
        self._ends = threading.Event()
        self._threads = [
            threading.Thread(target=self._run_on, args=(member, f"{place}-{n}", random.Random(f"{seed}-{place}-{n}")))
            for place, member in enumerate(self.members)
            for n in range(threads)
        ]

    def _run_on(self, member: Member, name: str, chance: random.Random) -> None:
        number = 0
        while not self._ends.is_set():
            number += 1
            owner = Owner.new(f"{name}-{number}")
            key = chance.choice(self._keys)
            is_long = chance.randrange(ONE_LONG_OF) == 0
            seconds = chance.uniform(0.4, 0.8) * TTL if is_long else chance.uniform(0.0, 0.02)
            outcome = self._run(member, key, owner, seconds)
            self.history.runs.append(Run(key, str(owner), time.monotonic(), outcome))
            if outcome != RAN:
                self._ends.wait(chance.uniform(0.0, 0.03))

    def _run(self, member: Member, key: str, owner: Owner, seconds: float) -> str:
        asked = time.monotonic()
        claim = Claim(key, owner, ttl=TTL, max_hold=10 * TTL)
        answer = member.gate.admit(claim, lambda: self._body(key, str(owner), asked, seconds), _well)
        if isinstance(answer, Admitted):
            return RAN
        return UNANSWERED if isinstance(answer, Unanswered) else REFUSED

    def _body(self, key: str, owner: str, asked: float, seconds: float) -> None:
        lease, now = current_lease(), time.monotonic()
        body = Body(key, owner, lease.token, asked, now, now)
        self.history.bodies.append(body)
        until = now + seconds
        while (now := time.monotonic()) < until and not self._ends.is_set():
            if lease.lost:
                body.lost = True
                return
            body.trusted_till = now  # it was trusted after that instant
            time.sleep(0.004)

    def wait_until_all_ran(self, since: float, timeout: float = PATIENCE) -> float:
        """Until a body has run on each key since an instant.

        Returns:
            The seconds from that instant to the last key's first body.
        """
        wait_until(lambda: not self._waiting(since), f"a body on each of {self._keys}", timeout=timeout)
        firsts = [min(body.began for body in self._of(key) if body.asked > since) for key in self._keys]
        return max(firsts) - since

    def _waiting(self, since: float) -> set[str]:
        return set(self._keys) - self.history.ran_since(since)

    def wait_for_runs(self, count: int) -> None:
        """Until so many more runs have ended, whatever became of them."""
        enough = len(self.history.runs) + count
        wait_until(lambda: len(self.history.runs) >= enough, f"{count} more runs")

    def _of(self, key: str) -> Iterator[Body]:
        return (body for body in list(self.history.bodies) if body.key == key)

    def finish(self) -> Verdict:
        """Let all runs end, and judge them."""
        self._ends.set()
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.history.stuck += [f"a run has not ended in {PATIENCE} s" for thread in self._threads if thread.is_alive()]
        for member in self.members:
            member.store.close()
        return judge(self.history)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait_until_all_ran(0.0)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()


def _well(error: BaseException | None) -> Ending:
    return Ending(Kind.WELL if error is None else Kind.FAILED)
