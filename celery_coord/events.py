"""What can happen, as frozen values, and the one place that turns them into log lines.

Everything that a user may want to count, alert on or look up is one of these. `celery_coord.signals` has a signal
for each.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from celery_coord.clock import Clock

logger = logging.getLogger("celery_coord")

#: Why a run is sent again: the store did not answer; a later version of this library uses the key.
STORE, LAYOUT = "store", "layout"

#: The same trouble is said again after so many seconds. It is the same where the act is, and so many characters of the
#: error; of so many different ones.
_SAY_AGAIN_AFTER, _TELLING, _MOST_TROUBLES = 10.0, 80, 100
_RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class LeaseAcquired:
    """A run holds its key."""

    key: str
    owner: str
    token: int


@dataclass(frozen=True, slots=True)
class LeaseReleased:
    """A run ended well and gave its key back."""

    key: str
    owner: str


@dataclass(frozen=True, slots=True)
class LeaseAbandoned:
    """A run did not end well, and gave its key back all the same."""

    key: str
    owner: str


@dataclass(frozen=True, slots=True)
class LeaseKept:
    """A run that is to be retried keeps its key for that, for so many seconds at most."""

    key: str
    owner: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """The lease ended under a run: `why` is ``"gone"`` (the store says so), ``"unrenewed"`` or ``"max_hold"``."""

    key: str
    owner: str
    why: str


@dataclass(frozen=True, slots=True)
class LeaseOutlived:
    """A body ended well after its lease was lost: its result stands, and earns no quiet period."""

    key: str
    owner: str
    token: int


@dataclass(frozen=True, slots=True)
class CooldownStarted:
    """A run left a quiet period of so many seconds."""

    key: str
    owner: str
    seconds: float


@dataclass(frozen=True, slots=True)
class CooldownCleared:
    """Somebody ended a quiet period by hand."""

    key: str


@dataclass(frozen=True, slots=True)
class TaskDropped:
    """A run was not admitted, and will not be.

    Attributes:
        reason: ``"held"`` or ``"cooling"``.
        holder: the owner that holds the key, or whose run left the cooldown.
        label: who that is, in words; may be empty.
        left: the seconds for which that lasts; None: no end is known.
    """

    task: str
    task_id: str
    reason: str
    key: str
    holder: str
    label: str
    left: float | None


@dataclass(frozen=True, slots=True)
class TaskDeferred:
    """A run was not admitted yet, and was sent again.

    Attributes:
        why: ``"redelivered"`` (its own earlier delivery may still live), ``"untold"`` (that one ended well, and its
            result is not there yet), ``"unrenewed"`` (the holder has missed a renewal, and may be dead), ``"begun"``
            (another run holds the key, and this one has begun before), ``"store"`` (the store did not answer) or
            ``"layout"`` (a later version of this library uses the key).
        countdown: for when it was sent, in seconds from now.
    """

    task: str
    task_id: str
    key: str
    why: str
    countdown: float


@dataclass(frozen=True, slots=True)
class TaskDuplicate:
    """A message was delivered again after its run had ended: it runs nothing and writes nothing."""

    task: str
    task_id: str
    key: str


@dataclass(frozen=True, slots=True)
class TaskUnguarded:
    """A run was let through without a lease, since the store is away and the setting says so."""

    task: str
    task_id: str
    key: str


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store did not answer while `doing` something."""

    doing: str
    error: str


@dataclass(frozen=True, slots=True)
class StoreRecovered:
    """The store answers again, after so many seconds in which so many acts of this process failed."""

    seconds: float
    failures: int


@dataclass(frozen=True, slots=True)
class LeaderElected:
    """This process leads; `label` is what others see of it."""

    name: str
    owner: str
    term: int
    label: str


@dataclass(frozen=True, slots=True)
class LeaderObserved:
    """Another process leads, and this one follows; told once for each leader that it meets."""

    name: str
    holder: str
    label: str


@dataclass(frozen=True, slots=True)
class LeaderResigned:
    """This process led, and gave it up: the store knows it.

    Attributes:
        why: ``"ended"`` (it was asked to end), ``"stuck"`` (its work goes on no more), ``"unable"`` (its work cannot be
            done), ``"limit"`` (its term has reached its limit) or ``"asked"`` (an operator asked for it).
    """

    name: str
    owner: str
    term: int
    why: str


@dataclass(frozen=True, slots=True)
class LeaderDeposed:
    """This process led, and can no longer be sure of it.

    Attributes:
        why: ``"gone"`` (the store says so), ``"unrenewed"``, or ``"unsettled"``: it gave the leadership up, and the
            store did not answer, so that the lease ends by itself.
    """

    name: str
    owner: str
    term: int
    why: str


@dataclass(frozen=True, slots=True)
class LeaderHeldBack:
    """This process does not campaign for so many seconds; None: until its work goes on.

    Attributes:
        why: as in `LeaderResigned` and `LeaderDeposed`.
    """

    name: str
    why: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class ComponentFailed:
    """A component's function raised.

    Attributes:
        doing: which: ``"elected"``, ``"round"``, ``"deposed"`` or ``"healthy"``.
    """

    name: str
    doing: str
    error: str


@dataclass(frozen=True, slots=True)
class EntrySkipped:
    """An entry of the schedule was due, and this beat did not send it.

    Attributes:
        why: ``"claimed"`` (another beat has sent it), ``"lost"`` (this one does not lead any more) or ``"store"`` (the
            store did not answer: it is tried again).
    """

    entry: str
    term: int
    why: str


@dataclass(frozen=True, slots=True)
class EntryFailed:
    """An entry of the schedule could not be sent, and is tried again in so many seconds."""

    entry: str
    term: int
    error: str
    seconds: float


Event = (
    LeaseAcquired
    | LeaseReleased
    | LeaseAbandoned
    | LeaseKept
    | LeaseLost
    | LeaseOutlived
    | CooldownStarted
    | CooldownCleared
    | TaskDropped
    | TaskDeferred
    | TaskDuplicate
    | TaskUnguarded
    | StoreFailed
    | StoreRecovered
    | LeaderElected
    | LeaderObserved
    | LeaderResigned
    | LeaderDeposed
    | LeaderHeldBack
    | ComponentFailed
    | EntrySkipped
    | EntryFailed
)

_LINES: dict[type[Event], tuple[int, str]] = {
    LeaseAcquired: (logging.DEBUG, "{key}: lease {token} acquired by {owner}"),
    LeaseReleased: (logging.DEBUG, "{key}: released by {owner}"),
    LeaseAbandoned: (logging.DEBUG, "{key}: abandoned by {owner}"),
    LeaseKept: (logging.DEBUG, "{key}: kept for a retry of {owner}, for {seconds:.1f} s"),
    LeaseLost: (logging.WARNING, "{key}: lease of {owner} lost ({why}); its body may still be running"),
    LeaseOutlived: (
        logging.WARNING,
        "{key}: the run of {owner} (token {token}) ended well under a lost lease; its result stands",
    ),
    CooldownStarted: (logging.DEBUG, "{key}: quiet for {seconds:.1f} s after {owner}"),
    CooldownCleared: (logging.INFO, "{key}: quiet period cleared"),
    TaskDeferred: (logging.WARNING, "{task}[{task_id}] not admitted to {key} yet ({why}); again in {countdown:.1f} s"),
    TaskDuplicate: (logging.INFO, "{task}[{task_id}] is a duplicate: its run on {key} has ended"),
    TaskUnguarded: (logging.ERROR, "{task}[{task_id}] runs without a lease on {key}: the store is away"),
    StoreFailed: (logging.WARNING, "the store failed while {doing}: {error}"),
    StoreRecovered: (logging.WARNING, "the store answers again after {seconds:.1f} s and {failures} failures"),
    LeaderElected: (logging.INFO, "{name}: elected, term {term}, as {owner} ({label})"),
    LeaderObserved: (logging.INFO, "{name}: following {holder} ({label})"),
    LeaderResigned: (logging.INFO, "{name}: resigned term {term} ({why})"),
    LeaderDeposed: (logging.WARNING, "{name}: no longer leading term {term} ({why})"),
    ComponentFailed: (logging.ERROR, "{name}: {doing} failed: {error}"),
    EntrySkipped: (logging.WARNING, "beat: {entry} not sent in term {term} ({why})"),
    EntryFailed: (logging.ERROR, "beat: {entry} could not be sent in term {term}, again in {seconds:.0f} s: {error}"),
}


class Log:
    """The log lines of events.

    While the store is away every run fails in the same way. Of what is the same trouble there is one line in ten
    seconds, and it says how many it stands for; `celery_coord.signals` tell of each.

    Args:
        clock: what the ten seconds are measured by.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._said: dict[str, tuple[float, int]] = {}  # when, on that clock, and how often since then in vain

    def __call__(self, event: Event) -> None:
        """Write the log line of an event."""
        if isinstance(event, TaskDropped):
            _log_drop(event)
            return
        if isinstance(event, LeaderHeldBack):
            _log_held_back(event)
            return
        level, line = _LINES[type(event)]
        if logger.isEnabledFor(level) and (more := self._more(_trouble(event))) is not None:
            if isinstance(event, StoreRecovered):  # what comes after that is news, and this is not
                self._said = {_RECOVERED: self._said.get(_RECOVERED, (self._clock.monotonic(), 0))}
            logger.log(level, "%s%s", line.format_map(_Fields(event)), more)

    def _more(self, trouble: str) -> str | None:
        """What to add to the line of a trouble; None: it has been said just now."""
        if not trouble:
            return ""
        now = self._clock.monotonic()
        said_at, unsaid = self._said.get(trouble, (-_SAY_AGAIN_AFTER, 0))
        if now < said_at + _SAY_AGAIN_AFTER:
            self._said[trouble] = (said_at, unsaid + 1)
            return None
        if len(self._said) >= _MOST_TROUBLES:  # what was said last is kept
            self._said = dict(sorted(self._said.copy().items(), key=lambda said: said[1])[_MOST_TROUBLES // 2 :])
        self._said[trouble] = (now, 0)
        return f" (and {unsaid} more like it in the last {now - said_at:.0f} s)" if unsaid else ""


def _trouble(event: Event) -> str:
    """What is the same for all lines that say the same; empty: this one is always said."""
    if isinstance(event, StoreFailed):
        return f"{event.doing.partition(' ')[0]}: {event.error[:_TELLING]}"
    if isinstance(event, StoreRecovered):
        return _RECOVERED
    if isinstance(event, TaskDeferred) and event.why in (STORE, LAYOUT):
        return f"deferred: {event.why}"
    return ""


def _log_held_back(event: LeaderHeldBack) -> None:
    how_long = "until its work goes on" if event.seconds is None else f"for {event.seconds:.1f} s"
    level = logging.INFO if event.why in ("asked", "limit") else logging.WARNING
    logger.log(level, "%s: not campaigning %s (%s)", event.name, how_long, event.why)


def _log_drop(event: TaskDropped) -> None:
    who = f"{event.holder} ({event.label})" if event.label else event.holder
    verb = "held by" if event.reason == "held" else "cooling since the run of"
    left = "without an end" if event.left is None else f"{event.left:.1f} s left"
    logger.info("%s[%s] dropped: %s is %s %s, %s", event.task, event.task_id, event.key, verb, who, left)


class _Fields(dict[str, object]):
    """The fields of an event, read only as a line asks for them."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self._event = event

    def __missing__(self, name: str) -> object:
        return getattr(self._event, name)
