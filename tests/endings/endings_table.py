"""Every way a run can end, and what must be so afterwards: the one source of the tests and of the page in the docs.

An `Ending` is a row; with a pool and a broker it is a `Cell`. Where a pool has no cell, such an ending does not exist
there: threads have no child that could be killed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

POOLS = ("prefork", "threads", "gevent", "eventlet", "solo", "eager")
BROKERS = ("redis", "rabbitmq")
#: What stands for the broker of an eager run.
NO_BROKER = "none"
#: A time limit in which a body begins also where the machine is busy, in seconds.
LIMIT = 5


class Free(Enum):
    """When the key is free."""

    WITH_BODY = "with the body"
    SOON = "within a second"
    TTL = "within the ttl"
    UNTAKEN = "was not taken"
    NEVER = "not in time"


@dataclass(frozen=True)
class Outcome:
    """What is so after a run has ended.

    Attributes:
        free: when the key is free.
        state: the state that waiters see in the end; or states, where Celery does now the one and now the other.
        error: the exception that they get, if any.
        bodies: how many bodies began.
    """

    free: Free
    state: str
    error: str = ""
    bodies: int = 1

    def agrees(self, seen: Outcome) -> bool:
        """Whether this is what was seen."""
        return seen.state in self.state.split(" or ") and replace(seen, state=self.state) == self

    def __str__(self) -> str:
        return f"key {self.free.value}; {self.bodies} bodies; {self.state} {self.error}".rstrip()


@dataclass(frozen=True)
class Ending:
    """One way a run can end.

    Attributes:
        name: what it is called.
        outcomes: what must be so then, for each place: pools, or ``pool@broker``, separated by blanks.
        task: which task of the project runs.
        act: how its first body ends.
        cause: what the test does to it, once that body has begun.
        options: what it is sent with.
        conf: settings of its worker.
        own_worker: whether the worker is the worse for it.
        successor: whether another worker takes over.
        redelivers: whether it needs a Redis that delivers again soon what a dead worker had.
        goes_on: where the body goes on whatever is done to it, and then ends: pools, or ``pool@broker``.
        note: what else a reader should know.
    """

    name: str
    outcomes: Mapping[str, Outcome]
    task: str = "early"
    act: str = "succeed"
    cause: str = "let it go on"
    options: Mapping[str, Any] = field(default_factory=dict)
    conf: Mapping[str, Any] = field(default_factory=dict)
    own_worker: bool = False
    successor: bool = False
    redelivers: bool = False
    goes_on: str = ""
    note: str = ""

    @property
    def stops_worker(self) -> bool:
        """Whether the cause tells the worker to stop."""
        return self.cause.startswith(("SIGTERM its worker", "SIGQUIT its worker"))

    def outcome(self, pool: str, broker: str) -> Outcome | None:
        """What must be so in this place; None where there is no such ending."""
        exact = f"{pool}@{broker}"
        named = {where: outcome for places, outcome in self.outcomes.items() for where in places.split()}
        return named.get(exact, named.get(pool))


@dataclass(frozen=True)
class Kind:
    """A kind of worker."""

    pool: str
    broker: str
    conf: tuple[tuple[str, Any], ...] = ()
    redelivers: bool = False


@dataclass(frozen=True)
class Cell:
    """An ending in one place."""

    ending: Ending
    pool: str
    broker: str
    outcome: Outcome

    @property
    def id(self) -> str:
        return f"{self.pool}-{self.broker}-{self.ending.name}"

    @property
    def goes_on(self) -> bool:
        return bool({self.pool, f"{self.pool}@{self.broker}"} & set(self.ending.goes_on.split()))

    @property
    def successor(self) -> Kind:
        """The worker that takes over; on Redis, one that looks for what was not acknowledged."""
        looks = self.broker != "redis" or self.pool not in GREEN.split()
        return self.kind if looks else replace(self.kind, pool="prefork")

    @property
    def place(self) -> str:
        return self.pool if self.broker == NO_BROKER else f"{self.pool} on {self.broker}"

    @property
    def kind(self) -> Kind:
        """The worker that it needs."""
        ending = self.ending
        # Celery needs seconds to find a child dead, and to say so: sooner than that its message must not run again.
        redelivers = ending.redelivers and self.outcome.error != "WorkerLostError"
        return Kind(self.pool, self.broker, tuple(sorted(ending.conf.items())), redelivers)

    @property
    def workers(self) -> list[Kind]:
        """The workers that are started for it alone."""
        return [self.kind] if self.ending.own_worker and "results" not in self.ending.cause else []


def cells() -> Iterator[Cell]:
    """All there are, those of one place together."""
    for pool in POOLS:
        for broker in BROKERS if pool != "eager" else (NO_BROKER,):
            for ending in ENDINGS:
                outcome = ending.outcome(pool, broker)
                if outcome is not None:
                    yield Cell(ending, pool, broker, outcome)


def is_in_sample(cell: Cell) -> bool:
    """Whether it is tested without being asked for: what costs little, what is promised most, and all in one place."""
    place = (cell.pool, cell.broker)
    return (
        place == ("prefork", "redis")
        or not cell.ending.own_worker
        or (place in _SAMPLED and cell.ending.name in _SAMPLED[place])
    )


_SAMPLED = {
    ("prefork", "rabbitmq"): (
        "child killed, `reject_on_worker_lost`",
        "worker killed, late ack",
        "broker connection lost, late ack",
        "cold shutdown, late ack",
    ),
    ("threads", "redis"): ("worker killed, late ack", "broker connection lost, late ack"),
    ("gevent", "redis"): ("hard time limit", "`revoke(terminate=True)`, SIGTERM", "worker killed, late ack"),
    ("eventlet", "rabbitmq"): ("worker killed, late ack",),
    ("solo", "rabbitmq"): ("broker connection lost, late ack",),
}

WORKERS = "prefork threads gevent eventlet solo"
GREEN = "gevent eventlet"

DONE = Outcome(Free.WITH_BODY, "SUCCESS")
DONE_AGAIN = Outcome(Free.WITH_BODY, "SUCCESS", bodies=2)
UNTOLD = Outcome(Free.WITH_BODY, "PENDING")
REVOKED = Outcome(Free.UNTAKEN, "REVOKED", "TaskRevokedError", bodies=0)


REFUSED = Outcome(Free.WITH_BODY, "FAILURE", "NotImplementedError")
LOST = Outcome(Free.WITH_BODY, "RETRY")


def _failed(error: str, free: Free = Free.WITH_BODY) -> Outcome:
    return Outcome(free, "FAILURE", error)


def _again(free: Free) -> Outcome:
    return Outcome(free, "SUCCESS", bodies=2)


_SOFT: dict[str, Any] = {"conf": {"worker_soft_shutdown_timeout": 1}}
_RECONNECTS = {"worker_enable_prefetch_count_reduction": False}
_VIOLENT: dict[str, Any] = {"own_worker": True}
_TAKEN_OVER: dict[str, Any] = {"own_worker": True, "successor": True, "redelivers": True}
_SOFT_OUTLASTED = {"prefork": LOST, f"threads {GREEN}": DONE, "solo": REFUSED}
_SOFT_OUTLASTED_LATE = {**_SOFT_OUTLASTED, "prefork": DONE_AGAIN}
_SOFT_GOES_ON = f"threads {GREEN}"
_COLD = {
    "prefork": LOST,
    "threads": DONE,
    "eventlet@rabbitmq": Outcome(Free.WITH_BODY, "SUCCESS or PENDING"),
    GREEN: UNTOLD,
    "solo": REFUSED,
}
_COLD_LATE = {**_COLD, "prefork": DONE_AGAIN}
_COLD_GOES_ON = "threads eventlet@rabbitmq"

ENDINGS: tuple[Ending, ...] = (
    Ending("success", {f"{WORKERS} eager": DONE}),
    Ending("exception", {f"{WORKERS} eager": _failed("ValueError")}, act="fail"),
    Ending(
        "`self.retry()`",
        {f"{WORKERS} eager": DONE_AGAIN},
        act="retry",
        note="a retry that follows at once (`countdown=0`) in a worker with several slots may meet a race of Celery's "
        "own: RETRY is written over the SUCCESS of the next try, and stays. Give retries a delay.",
    ),
    Ending("retry by `autoretry_for`", {f"{WORKERS} eager": DONE_AGAIN}, act="autoretry"),
    Ending("`self.replace()`", {f"{WORKERS} eager": DONE_AGAIN}, act="replace"),
    Ending(
        "`Ignore`",
        {WORKERS: UNTOLD, "eager": Outcome(Free.WITH_BODY, "IGNORED")},
        act="ignore",
        note="Celery tells nobody of it: who waits, waits for ever.",
    ),
    Ending(
        "`Reject(requeue=False)`",
        {WORKERS: _failed("Reject"), "eager": Outcome(Free.WITH_BODY, "REJECTED")},
        act="reject",
    ),
    Ending(
        "`Reject(requeue=True)`, early ack",
        {WORKERS: UNTOLD},
        act="requeue",
        note="the message was acknowledged before the body began, so that it cannot be requeued: the work is lost.",
    ),
    Ending("`Reject(requeue=True)`, late ack", {WORKERS: DONE_AGAIN}, task="late", act="requeue"),
    Ending("revoked before it starts", {WORKERS: REVOKED}, cause="revoke it first"),
    Ending("expired before it starts", {WORKERS: REVOKED}, cause="nothing", options={"expires": -1}),
    Ending(
        "`revoke(terminate=True)`, SIGTERM",
        {
            f"prefork {GREEN}": Outcome(Free.SOON, "REVOKED", "TaskRevokedError"),
            "threads solo": Outcome(Free.SOON, "SUCCESS"),
        },
        cause="SIGTERM it",
        goes_on="threads solo",
        note="threads cannot be ended, and a solo worker hears of it when the body has ended: it goes on to its end. "
        "REVOKED may be told first, and SUCCESS when it has ended.",
        **_VIOLENT,
    ),
    Ending(
        "`revoke(terminate=True)`, SIGKILL",
        {"prefork": Outcome(Free.SOON, "REVOKED", "TaskRevokedError")},
        cause="SIGKILL it",
        **_VIOLENT,
    ),
    Ending(
        "`revoke(terminate=True)`, SIGUSR1",
        {"prefork": _failed("SoftTimeLimitExceeded", Free.SOON)},
        cause="SIGUSR1 it",
        note="REVOKED first, and FAILURE when the body has ended.",
        **_VIOLENT,
    ),
    Ending(
        "soft time limit",
        {"prefork": _failed("SoftTimeLimitExceeded")},
        cause="nothing",
        options={"soft_time_limit": LIMIT},
    ),
    Ending(
        "hard time limit",
        {"prefork": _failed("TimeLimitExceeded", Free.SOON), "gevent": _failed("TimeLimitExceeded")},
        cause="nothing",
        options={"time_limit": LIMIT},
        **_VIOLENT,
    ),
    Ending(
        "hard time limit in one long call into C",
        {"prefork": _failed("TimeLimitExceeded", Free.SOON)},
        cause="nothing",
        act="compute",
        options={"time_limit": LIMIT},
        **_VIOLENT,
    ),
    Ending(
        "`sys.exit()`, early ack",
        {
            "prefork": _failed("WorkerLostError"),
            f"threads {GREEN} solo": UNTOLD,
            "eager": Outcome(Free.WITH_BODY, "raised", "SystemExit"),
        },
        act="leave",
        **_TAKEN_OVER,
    ),
    Ending(
        "`sys.exit()`, late ack",
        {
            "prefork": _failed("WorkerLostError"),
            "threads@redis gevent@redis eventlet@redis solo": DONE_AGAIN,
            "threads@rabbitmq gevent@rabbitmq eventlet@rabbitmq": UNTOLD,
        },
        task="late",
        act="leave",
        note="in threads and greenlets the message is never acknowledged. Redis delivers it again when the visibility "
        "timeout has passed, RabbitMQ when the worker has ended.",
        **_TAKEN_OVER,
    ),
    Ending(
        "`MemoryError`, early ack",
        {f"{WORKERS} eager": _failed("MemoryError")},
        act="exhaust",
        **_TAKEN_OVER,
    ),
    Ending(
        "`MemoryError`, late ack",
        {
            "prefork threads@redis gevent@redis eventlet@redis solo": DONE_AGAIN,
            "threads@rabbitmq gevent@rabbitmq eventlet@rabbitmq": _failed("MemoryError"),
        },
        task="late",
        act="exhaust",
        note="Celery ends the whole worker (prefork, solo), or never acknowledges the message: so it comes again. "
        "Until then the state is FAILURE.",
        **_TAKEN_OVER,
    ),
    Ending(
        "child killed, early ack",
        {"prefork": _failed("WorkerLostError", Free.SOON)},
        cause="kill its process",
        **_VIOLENT,
    ),
    Ending(
        "child killed, late ack",
        {"prefork": _failed("WorkerLostError", Free.SOON)},
        task="late",
        cause="kill its process",
        **_VIOLENT,
    ),
    Ending(
        "child killed, `reject_on_worker_lost`",
        {"prefork": _again(Free.SOON)},
        task="late_rejecting",
        cause="kill its process",
        **_VIOLENT,
    ),
    Ending(
        "child killed, `retry_on_worker_lost`",
        {"prefork": _again(Free.SOON)},
        task="late_retrying",
        cause="kill its process",
        **_VIOLENT,
    ),
    Ending(
        "worker killed, early ack",
        {WORKERS: Outcome(Free.TTL, "PENDING"), "solo": _again(Free.TTL)},
        task="brief_early",
        cause="kill its worker",
        note="the message was acknowledged: the work is lost, and who waits, waits for ever. A solo worker "
        "acknowledges when the body has ended, whatever `acks_late` says, so that its message comes again.",
        **_TAKEN_OVER,
    ),
    Ending(
        "worker killed, late ack",
        {WORKERS: _again(Free.TTL)},
        task="brief_late",
        cause="kill its worker",
        note="on Redis the message comes again when the visibility timeout has passed and a worker looks for such "
        "messages. Workers of greenlets hardly ever do: have one of another pool on the same Redis.",
        **_TAKEN_OVER,
    ),
    Ending("warm shutdown, early ack", {WORKERS: DONE}, cause="SIGTERM its worker, then let it go on", **_VIOLENT),
    Ending(
        "warm shutdown, late ack",
        {WORKERS: DONE},
        task="late",
        cause="SIGTERM its worker, then let it go on",
        **_VIOLENT,
    ),
    Ending(
        "soft shutdown, ended in time, early ack",
        {WORKERS: DONE, "solo": REFUSED},
        cause="SIGQUIT its worker, then let it go on",
        conf={"worker_soft_shutdown_timeout": 5},
        **_VIOLENT,
    ),
    Ending(
        "soft shutdown, ended in time, late ack",
        {WORKERS: DONE, "solo": REFUSED},
        task="late",
        cause="SIGQUIT its worker, then let it go on",
        conf={"worker_soft_shutdown_timeout": 5},
        note="a solo worker cannot wait for the body that it runs itself, and ends it at once.",
        **_VIOLENT,
    ),
    Ending(
        "soft shutdown, not ended in time, early ack",
        _SOFT_OUTLASTED,
        cause="SIGQUIT its worker",
        goes_on=_SOFT_GOES_ON,
        **_SOFT,
        **_TAKEN_OVER,
    ),
    Ending(
        "soft shutdown, not ended in time, late ack",
        _SOFT_OUTLASTED_LATE,
        task="late",
        cause="SIGQUIT its worker",
        goes_on=_SOFT_GOES_ON,
        note="Celery's way to end the body fails in greenlets, as the worker's output says: it goes on to its end.",
        **_SOFT,
        **_TAKEN_OVER,
    ),
    Ending(
        "cold shutdown, early ack",
        _COLD,
        cause="SIGQUIT its worker",
        goes_on=_COLD_GOES_ON,
        note="Celery writes RETRY (prefork) or nothing (greenlets) and sends nothing again: the work is lost, and who "
        "waits, waits for ever. Threads cannot be ended: the worker waits for them. In eventlet it depends on where "
        "the signal found the worker: Celery's way to end the body may fail, and that goes on to its end.",
        **_TAKEN_OVER,
    ),
    Ending(
        "cold shutdown, late ack",
        _COLD_LATE,
        task="late",
        cause="SIGQUIT its worker",
        goes_on=_COLD_GOES_ON,
        note="in greenlets Celery acknowledges the message, so that the work is lost; or its way to end the body "
        "fails, and that goes on to its end.",
        **_TAKEN_OVER,
    ),
    Ending(
        "result backend away, early ack",
        {WORKERS: UNTOLD},
        cause="stop the results, then let it go on",
        **_VIOLENT,
    ),
    Ending(
        "result backend away, late ack",
        {WORKERS: UNTOLD},
        task="late",
        cause="stop the results, then let it go on",
        note="the result is told to nobody.",
        **_VIOLENT,
    ),
    Ending(
        "broker connection lost, early ack",
        {WORKERS: DONE},
        cause="cut off its worker, then let it go on",
        conf=_RECONNECTS,
        **_VIOLENT,
    ),
    Ending(
        "broker connection lost, late ack",
        {WORKERS: DONE},
        task="late",
        cause="cut off its worker, then let it go on",
        conf=_RECONNECTS,
        note="the message comes again while the body runs: that copy waits, and ends as a duplicate. With gevent on "
        "RabbitMQ set `worker_enable_prefetch_count_reduction = False`: otherwise Celery may leave the worker deaf.",
        **_VIOLENT,
    ),
    Ending(
        "last task of its child (`worker_max_tasks_per_child`)",
        {"prefork": DONE},
        conf={"worker_max_tasks_per_child": 1},
        **_VIOLENT,
    ),
)
