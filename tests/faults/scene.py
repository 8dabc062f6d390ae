"""A store that can fail, and those whom it concerns: a run that asks, a holder, a body that ends, a leader.

They are in this process, each in a thread, on the library's own gate, keeper and election; what they said is kept.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Self

import redis
from celery import Celery
from local_processes import wait_until
from proxy import Proxy, reserved
from resolver import Name

from celery_coord.app import Coordination, install
from celery_coord.election import Candidate
from celery_coord.gate import Admitted, Claim, Ending, Kind, Unanswered, current_lease
from celery_coord.lease import Cooling, Done, Held, Owner
from celery_coord.policy import Cooldown
from celery_coord.renewal import Holding
from celery_coord.signals import SIGNALS
from celery_coord.testing import LocalServer

#: How long a lease outlives its last renewal: who is renewed may be kept waiting for half of that, and holds it still.
TTL = 6.0
#: The same for one who is to lose it: a holder that hears nothing finds it lost a little sooner.
SHORT = 1.0
#: Much longer than any fault lasts here.
LONG = 30.0
#: `coord_store_timeout`: a store that takes its time is no outage. A whole act ends within three times that.
TIMEOUT = 3.0
#: The quiet period that a good end leaves: longer than a module's tests take.
QUIET = 600.0

Outcome = Admitted[Any] | Held | Cooling | Done | Unanswered

_numbers = itertools.count(1)


class Body(threading.Thread):
    """A run on a key, from the moment that it is admitted; its body ends when `end` is called."""

    def __init__(self, coordination: Coordination, key: str, ttl: float, kind: Kind) -> None:
        super().__init__(name=f"body-{key}", daemon=True)
        self.key = key
        self.outcome: Outcome | None = None
        self.holding: Holding | None = None
        self._coordination = coordination
        self._claim = claim_on(key, ttl)
        self._kind = kind
        self._go = threading.Event()

    def run(self) -> None:
        gate = self._coordination.gate
        self.outcome = gate.admit(self._claim, self._body, lambda _: ending(self._kind))

    def _body(self) -> None:
        self.holding = current_lease()
        self._go.wait()

    @property
    def token(self) -> int:
        assert self.holding, f"{self.key} was not admitted: {self.outcome}"
        return self.holding.token

    @property
    def lost(self) -> bool:
        assert self.holding, f"{self.key} was not admitted: {self.outcome}"
        return self.holding.lost

    def wait_until_lost(self) -> None:
        wait_until(lambda: self.lost, f"the holder of {self.key} knows that its lease is lost")

    def end(self) -> Outcome:
        """Let the body end, and wait until the run has."""
        self._go.set()
        self.join(60)
        assert self.outcome is not None, f"the run on {self.key} does not end"
        return self.outcome


class Process:
    """What one process has of coordination, and what it said.

    Args:
        url: the store.
        conf: settings.
    """

    def __init__(self, url: str, **conf: Any) -> None:
        self._stack = ExitStack()
        self.app = self._stack.enter_context(Celery("faults", set_as_current=False))
        self.app.conf.update({"coord_url": url, "coord_store_timeout": TIMEOUT, **conf})
        self._bodies: list[Body] = []
        self._said: list[tuple[str, dict[str, Any]]] = []
        for ours in SIGNALS.values():
            self._listen(ours.name, ours)
        self.coordination = Coordination(self.app)
        install(self.app, self.coordination)
        self._stack.callback(self.coordination.store.close)

    def _listen(self, name: str, ours: Any) -> None:
        def hear(sender: object, signal: object, **fields: Any) -> None:
            if sender is self.app:
                self._said.append((name, fields))

        ours.connect(hear, weak=False)
        self._stack.callback(ours.disconnect, hear)

    def said(self, signal: str, **fields: Any) -> list[dict[str, Any]]:
        """The signals of this name with these fields, in order."""
        return [told for name, told in list(self._said) if name == signal and fields.items() <= told.items()]

    def wait_for(self, signal: str, **fields: Any) -> dict[str, Any]:
        return wait_until(lambda: self.said(signal, **fields), f"{signal} {fields}")[0]

    def begin(self, key: str, *, ttl: float = TTL, kind: Kind = Kind.WELL) -> Body:
        """A run that holds a key until it is told to end."""
        body = Body(self.coordination, key, ttl, kind)
        body.start()
        self._bodies.append(body)
        wait_until(lambda: body.holding or body.outcome, f"{key} is held")
        return body

    def ask(self, key: str, *, ttl: float = LONG, run: str = "") -> Outcome:
        """A run that is over in an instant, and what became of it; its value is its token."""
        claim = claim_on(key, ttl, run=run)
        return self.coordination.gate.admit(claim, lambda: current_lease().token, lambda _: ending(Kind.WELL))

    def lead(self, name: str = "elected", *, ttl: float = TTL) -> Candidate:
        """One that leads."""
        candidate = self.campaign(name, ttl=ttl)
        wait_until(lambda: candidate.leads, f"{name} is led")
        return candidate

    def campaign(self, name: str = "elected", *, ttl: float = TTL) -> Candidate:
        """One that campaigns until the process ends."""
        candidate = self.coordination.candidate(name, ttl=ttl)
        candidate.campaign()
        self._stack.callback(candidate.resign)
        return candidate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for body in self._bodies:
            body.end()
        self._stack.close()


def grew(before: float | None, after: float | None) -> bool:
    """Whether there was a number, and now there is a larger one."""
    return before is not None and after is not None and after > before


def ending(kind: Kind) -> Ending:
    """As a run has it: a good end is remembered."""
    return Ending(kind, remember=600.0 if kind is Kind.WELL else 0.0)


def claim_on(key: str, ttl: float, *, run: str = "") -> Claim:
    return Claim(
        key,
        Owner.new(run or f"run{next(_numbers)}"),
        ttl=ttl,
        max_hold=3600.0,
        cooldown=Cooldown(QUIET),
        heed_cooldown=True,
        remember=600.0,
    )


class Scene:
    """A store of one's own behind a line that can fail, and processes that use it.

    Args:
        options: the server's.
        timeout: `coord_store_timeout`.
        is_named: whether the processes know it by a name, for which they have to ask.
        binary: the server's program; None: any.
    """

    def __init__(
        self,
        options: Sequence[str] = (),
        *,
        timeout: float = TIMEOUT,
        is_named: bool = False,
        binary: str | None = None,
    ) -> None:
        self._stack = ExitStack()
        self._options = options
        self._timeout = timeout
        port = self._stack.enter_context(reserved()).getsockname()[1]  # nobody's, also while the server starts again
        self.server = self._stack.enter_context(LocalServer(options, port=port, binary=binary))
        self._stack.callback(self.server.kill)  # nobody waits for its orderly end
        self.proxy = self._stack.enter_context(Proxy(self.server.port))
        self.client: redis.Redis = self._stack.enter_context(
            redis.Redis.from_url(self.server.url, decode_responses=True)
        )
        self._stack.callback(self._wake)
        self.name = Name(self.proxy.port)
        host = self._stack.enter_context(self.name.known())
        self.url = self.proxy.url.replace("127.0.0.1", host) if is_named else self.proxy.url
        self.process = self.another()

    def another(self, **conf: Any) -> Process:
        """One more process that has used the store already; and so the server knows the scripts of its acts."""
        process = self._stack.enter_context(Process(self.url, **{"coord_store_timeout": self._timeout, **conf}))
        process.ask(f"warm{next(_numbers)}")
        return process

    def restart(self, *, crash: bool = True, more: Sequence[str] = ()) -> None:
        """End the server, and start it again where it was, with more options than before."""
        if crash:
            self.server.kill()
        self.server.stop()
        self.server._options = [*self._options, *more]
        self.server.start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """The server's process does nothing for as long as the block lasts; its connections stay."""
        pid = self.server.pid
        assert pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _wake(self) -> None:
        if self.server.pid:
            os.kill(self.server.pid, signal.SIGCONT)
        self.proxy.heal()

    def lock(self, key: str) -> str | None:
        """The owner that the server knows."""
        found = self.client.get(f"lock:{{coord:{key}}}")
        return None if found is None else str(found)

    def is_cooling(self, key: str) -> bool:
        """As the server knows it."""
        return bool(self.client.exists(f"coord1-cooldown:{{coord:{key}}}"))

    def wait_for_renewal(self, key: str) -> None:
        """Until the lease on a key ends later than it would have."""
        end = self._end_of(key)
        wait_until(lambda: self._end_of(key) > end + 0.1, f"a renewal of {key}")

    def _end_of(self, key: str) -> float:
        """By the server's clock, which it says in the same instant; 0 where there is no lease."""
        at_once = 'return {redis.call("PTTL", KEYS[1]), unpack(redis.call("TIME"))}'
        left, seconds, microseconds = map(int, self.client.eval(at_once, 1, f"lock:{{coord:{key}}}"))
        return seconds + microseconds / 1_000_000 + left / 1000 if left > 0 else 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


#: Starts a scene whose server has these options.
MakeScene = Callable[[Sequence[str]], Scene]
