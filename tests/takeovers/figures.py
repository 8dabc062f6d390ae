"""What is printed at the end, to be pasted into the documentation."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from tests.takeovers.history import (
    CRASH,
    LONG_STALL,
    PAUSE,
    RESIGN,
    SHORT_STALL,
    STEP_DOWN,
    History,
    Struck,
)
from tests.takeovers.judge import EXCUSE, Verdict

_SINCE = {
    CRASH: "crash (since SIGKILL)",
    RESIGN: "resignation (since SIGTERM)",
    PAUSE: "pause (since SIGSTOP)",
    STEP_DOWN: "step-down (since it was asked for)",
    LONG_STALL: "stall > ttl (since the store went on)",
}


def report(history: History, verdict: Verdict) -> str:
    """Counts, and how they are distributed."""
    return "\n".join([*_counts(history, verdict), "", *_gaps(history), "", *_lateness(history)])


def _counts(history: History, verdict: Verdict) -> Iterator[str]:
    kinds = Counter(struck.kind for struck in history.struck)
    asked_for = sum(kinds[kind] for kind in _SINCE)
    yield f"take-overs         {asked_for}: " + ", ".join(f"{kinds[kind]} by {kind}" for kind in _SINCE)
    yield f"short stalls       {kinds[SHORT_STALL]} of the store, shorter than the ttl"
    unasked = len(history.elected) - 1 - asked_for
    yield f"terms              {len(history.elected)}, {unasked} beside the first one and these"
    yield f"messages           {len(history.messages)} of {len(history.grids) + len(history.intervals)} entries"
    yield f"instants twice     {len(verdict.twice)}"
    yield f"instants missing   {len(verdict.missing)}"
    yield f"instants excused   {len(verdict.excused)}: claimed by a beat that was killed within {EXCUSE * 1000:.0f} ms"
    yield f"anything else      {len(verdict.wrong)}"


def _gaps(history: History) -> Iterator[str]:
    yield f"{'from the end of a leader to the first message of the next, s':62}{_HEAD}"
    gaps: dict[str, list[float]] = {kind: [] for kind in _SINCE}
    for struck, gap in _measured(history):
        gaps[struck.kind].append(gap)
    for kind, since in _SINCE.items():
        yield f"  {since:60}{_row(gaps[kind])}"


def _measured(history: History) -> Iterator[tuple[Struck, float]]:
    """From each end of a leader to the next message; not where the next leader was struck before it sent any."""
    messages = history.messages
    following = [*history.struck[1:], None]
    for struck, later in zip(history.struck, following, strict=True):
        if struck.kind not in _SINCE:
            continue
        first = next((message.at for message in messages if message.term > struck.term), None)
        if first is not None and (later is None or first < later.at):
            yield struck, first - struck.at


def _lateness(history: History) -> Iterator[str]:
    late = [message.at - message.due for message in history.messages if message.due is not None]
    yield f"{'from the instant to its message, s':62}{_HEAD}"
    yield f"  {'all, those of the take-overs among them':60}{_row(late)}"


_HEAD = f"{'n':>6}{'min':>9}{'median':>9}{'95 %':>9}{'max':>9}"


def _row(values: Sequence[float]) -> str:
    if not values:
        return f"{0:6}"
    columns = (min(values), statistics.median(values), _centile(values, 0.95), max(values))
    return f"{len(values):6}" + "".join(f"{value:9.3f}" for value in columns)


def _centile(values: Sequence[float], part: float) -> float:
    """The smallest value that so many do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
