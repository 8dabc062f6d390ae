"""The judge: from what happened to what was wrong with it. Knows no server, no process and no clock.

What must hold:

* each instant of a grid, from the first that was sent until a beat was last there, is sent once: not twice, not never;
* an entry that counts from its last run is due exactly that long after the last run that is written down;
* who sends an instant has claimed it before, in the same term, or has taken it over from one who owed it; no term
  claims anything after a later one has;
* terms only grow, and in each one process sends: the one that was elected.

One excuse is heard for an instant that is missing: a beat had claimed it, and was killed before the broker had it.
The kill must have come about then, or as a store went on that had stalled over the claim: see `EXCUSE`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise

from tests.takeovers.history import CRASH, LONG_STALL, SHORT_STALL, Claim, Elected, History, Message, Payment

#: How near a kill must be to the claim that it cut off from its message, in seconds.
EXCUSE = 0.05
#: How late the last instants before the end may be, in seconds: those of a later time need not be there.
_LATEST = 1.0
#: How much an instant that was written down and read again may differ from itself, in seconds.
_ROUNDING = 0.002
#: How much before its time a message may seem to be, since two clocks are read, in seconds.
_CLOCKS = 0.02


@dataclass(frozen=True, slots=True)
class Right:
    """The right to send one instant: what a claim gives.

    Attributes:
        claim: the claim.
        due: the instant.
        place: where in the log the claim is.
    """

    claim: Claim
    due: float
    place: int


@dataclass
class Verdict:
    """What the judge found.

    Attributes:
        twice: instants that were sent more than once.
        missing: instants that were never sent, and that nothing excuses.
        excused: instants that were never sent since the beat that had claimed them was killed about then.
        wrong: what else was wrong.
    """

    twice: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    excused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def objections(self) -> list[str]:
        """Everything that must not be."""
        return [*self.twice, *self.missing, *self.wrong]


def judge(history: History, excuse: float = EXCUSE) -> Verdict:
    """Compare what happened with what must hold.

    Args:
        history: what happened.
        excuse: how near a kill must be to the claim that it cut off, in seconds: as long as the machine may let
            the claimer wait before it sends.
    """
    return _Court(history, excuse).verdict()


class _Court:
    """One hearing."""

    def __init__(self, history: History, excuse: float) -> None:
        self._history = history
        self._excuse = excuse
        self._found = Verdict()
        self._messages: dict[str, list[Message]] = defaultdict(list)
        for message in history.messages:
            self._messages[message.entry].append(message)
        self._rights, self._undone = _rights(history)
        self._paid = {
            (event.entry, event.term, round(event.due, 3)): place
            for place, event in enumerate(history.log)
            if isinstance(event, Payment)
        }
        self._last_places = {event.term: place for place, event in enumerate(history.log)}

    def verdict(self) -> Verdict:
        for entry, step in self._history.grids.items():
            self._hear_grid(entry, step)
        for entry in self._history.intervals:
            self._hear_interval(entry)
        self._found.wrong += [
            *self._without_right(),
            *self._before_due(),
            *_terms_that_shrink(self._history.elected),
            *self._claims_of_old_terms(),
            *self._senders(),
        ]
        return self._found

    def _hear_grid(self, entry: str, step: float) -> None:
        """Each instant once."""
        sent = Counter(round(message.due / step) for message in self._of(entry))
        off = [
            message for message in self._of(entry) if abs(message.due / step - round(message.due / step)) > _ROUNDING
        ]
        self._found.wrong += [f"{entry} was sent for {message.due:.6f}, when it was not due" for message in off]
        self._found.twice += [
            f"{entry} of {n * step:.2f} was sent {times} times: {self._sends(entry, n * step)}"
            for n, times in sent.items()
            if times > 1
        ]
        began = min((elected.at for elected in self._history.elected), default=0.0) + _LATEST
        first = min([*sent, int(began / step) + 1])
        for n in range(first, int((self._history.ended - _LATEST) / step) + 1):
            if n not in sent:
                self._never_sent(entry, n * step)

    def _hear_interval(self, entry: str) -> None:
        """Strictly later each time, but for what an older term had claimed; and what was claimed is sent."""
        dues = sorted(message.due for message in self._of(entry))
        for before, due in pairwise(dues):
            if _same(before, due):
                self._found.twice.append(f"{entry} of {due:.6f} was sent twice: {self._sends(entry, due)}")
        for former, message in pairwise(self._of(entry)):
            if message.due < former.due - _ROUNDING and message.term >= former.term and not self._is_paid(message):
                self._found.wrong.append(f"{entry} of {message.due:.6f} was sent after that of {former.due:.6f}")
        for right in self._rights[entry]:
            if not _has(dues, right.due) and right.claim.at < self._history.ended:
                self._never_sent(entry, right.due)
        if max(dues, default=0.0) < self._history.ended - _LATEST - self._history.intervals[entry]:
            self._found.wrong.append(f"{entry} was not sent any more at the end")

    def _never_sent(self, entry: str, due: float) -> None:
        killed = [right for right in self._rights[entry] if _same(right.due, due) and self._was_cut_off(right)]
        if killed:
            self._found.excused.append(f"{entry} of {due:.6f}: its claim of term {killed[-1].claim.term} was cut off")
        else:
            self._found.missing.append(f"{entry} of {due:.6f} was never sent{self._story(entry, due)}")

    def _was_cut_off(self, right: Right) -> bool:
        """A beat sends one after the other: only the last thing that it did can have been cut off from its message."""
        # A store that stalled answers the claim when it goes on.
        stalls = [struck.at for struck in self._history.struck if struck.kind in {SHORT_STALL, LONG_STALL}]
        answered = [right.claim.at, *(at for at in stalls if at > right.claim.at)]
        return right.place == self._last_places[right.claim.term] and any(
            struck.kind == CRASH and struck.term == right.claim.term and abs(struck.at - at) <= self._excuse
            for struck in self._history.struck
            for at in answered
        )

    def _sends(self, entry: str, due: float) -> str:
        sent = [message for message in self._of(entry) if _same(message.due, due)]
        return ", ".join(f"at {message.at:.6f} in term {message.term}" for message in sent)

    def _story(self, entry: str, due: float) -> str:
        """Who claimed it, and what was done to that process."""
        for right in self._rights[entry]:
            if _same(right.due, due):
                near = [
                    f", {struck.kind} of term {struck.term} at {struck.at:.6f}"
                    for struck in self._history.struck
                    if abs(struck.at - right.claim.at) < _LATEST
                ]
                return f"; claimed in term {right.claim.term} at {right.claim.at:.6f}{''.join(near)}"
        return "; never claimed"

    def _without_right(self) -> Iterator[str]:
        """Messages whose instant had not been claimed before, in their term."""
        known = {*self._history.grids, *self._history.intervals}
        rights: dict[tuple[str, int], list[Right]] = defaultdict(list)
        for right in self._all_rights():
            rights[right.claim.entry, right.claim.term].append(right)
        since = {entry: rights[0].due - _ROUNDING for entry, rights in self._rights.items() if rights}
        for place, message in enumerate(self._history.log):
            if not isinstance(message, Message):
                continue
            if message.due is None or message.entry not in known:
                yield f"{message.entry} was sent in term {message.term} for no instant of the schedule"
                continue
            if message.due < since.get(message.entry, 0.0):
                continue  # the record of the entry began with it
            claimed = [right for right in rights[message.entry, message.term] if _same(right.due, message.due)]
            if not any(right.place < place for right in claimed) and not self._is_paid(message, before=place):
                yield f"{message.entry} of {message.due:.6f} was sent in term {message.term}, which had not claimed it"

    def _is_paid(self, message: Message, before: float = float("inf")) -> bool:
        """Whether it was owed by an older term, and its sender had taken it over."""
        return self._paid.get((message.entry, message.term, round(message.due or 0.0, 3)), before) < before

    def _claims_of_old_terms(self) -> Iterator[str]:
        """Rights that a term took after a later one had. What undoes a claim may come at any time: it gives none."""
        newest = 0
        for right in sorted(self._all_rights(), key=lambda right: right.place):
            term, entry = right.claim.term, right.claim.entry
            if term < newest:
                yield f"{entry} of {right.due:.6f} was claimed in term {term} after a claim of term {newest}"
            newest = max(newest, term)

    def _before_due(self) -> Iterator[str]:
        for message in self._history.messages:
            if message.due is not None and message.at < message.due - _CLOCKS:
                yield f"{message.entry} of {message.due:.6f} was sent {message.due - message.at:.3f} s too early"

    def _senders(self) -> Iterator[str]:
        """In each term one process sends, the one that was elected."""
        elected = {told.term: told.pid for told in self._history.elected}
        senders: dict[int, set[int]] = defaultdict(set)
        for message in self._history.messages:
            senders[message.term].add(message.sender)
        for term, pids in senders.items():
            if len(pids) > 1:
                yield f"{len(pids)} processes sent in term {term}"
            elif pids != {elected.get(term)}:
                yield f"another process sent in term {term} than the one that was elected"

    def _all_rights(self) -> Iterator[Right]:
        return chain(*self._rights.values(), *self._undone.values())

    def _of(self, entry: str) -> list[Message]:
        return [message for message in self._messages[entry] if message.due is not None]


def _rights(history: History) -> tuple[dict[str, list[Right]], dict[str, list[Right]]]:
    """What the claims allow, by entry: those that stand, and those that were undone."""
    standing: dict[str, list[Right]] = defaultdict(list)
    undone: dict[str, list[Right]] = defaultdict(list)
    runs: dict[str, float] = {}
    for place, claim in enumerate(history.log):
        if not isinstance(claim, Claim):
            continue
        last = runs.get(claim.entry)
        runs[claim.entry] = claim.run
        if last is None:
            continue  # where the record of the entry begins
        if claim.run > last:
            standing[claim.entry].append(Right(claim, _next(history, claim.entry, last), place))
        elif claim.run < last and standing[claim.entry]:
            undone[claim.entry].append(standing[claim.entry].pop())
    return standing, undone


def _next(history: History, entry: str, last: float) -> float:
    """The first instant of an entry after its last run."""
    if step := history.grids.get(entry):
        return ((last + _ROUNDING) // step + 1) * step
    return last + history.intervals[entry]


def _terms_that_shrink(elected: list[Elected]) -> Iterator[str]:
    for before, after in pairwise(elected):
        if after.term <= before.term:
            yield f"term {after.term} began after term {before.term}"


def _has(dues: list[float], due: float) -> bool:
    return any(_same(one, due) for one in dues)


def _same(one: float, other: float) -> bool:
    return abs(one - other) < _ROUNDING
