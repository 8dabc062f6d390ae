"""Whether the promises were kept: functions of the journal that can say no.

A body lasts from ``entered`` to ``left``. One whose process was killed writes no ``left``: it ended at the latest when
``killed`` was written, which is after the process was dead. So a body that is entered while another has not left
overlaps it, unless the other's process had been killed before and the newer token is the larger.

A round of a component lasts from ``began`` to ``ended`` likewise. Rounds have no lease of their own but a term, which
many of them share; so it is processes that must not mix, in time or in terms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from example_project.journal import Entry

#: How long after its ttl the lease of a crashed leader may still keep the others waiting, in seconds.
TAKE_OVER_GRACE = 1.0
#: What beats campaign for.
BEAT = "beat"

_WHY = {"held": "another run was at it", "cooling": "another run had just done it"}
_ENDS = ("left", "dropped", "duplicate")


@dataclass(frozen=True, slots=True)
class Promise:
    """One promise, whether it was kept, and what was seen of it."""

    text: str
    kept: bool
    seen: str


def overlaps(journal: Iterable[Entry]) -> list[str]:
    """Each body that was entered while another one of its cluster had not ended."""
    found: list[str] = []
    running: dict[str, Entry] = {}
    killed: set[Entry] = set()
    for entry in journal:
        before = running.get(entry.cluster)
        if entry.what == "killed":
            killed.update(body for body in running.values() if body.pid == entry.pid)
        elif entry.what == "entered" and entry.cluster:
            if before and not (before in killed and entry.token > before.token):
                found.append(f"{entry.cluster}: {_who(entry)} was entered beside {_who(before)}")
            running[entry.cluster] = entry
        elif entry.what == "left" and entry.cluster:
            if before is None or before in killed or before.token != entry.token:
                found.append(f"{entry.cluster}: {_who(entry)} was still running after it should have ended")
            else:
                del running[entry.cluster]
    return found


def tokens_that_did_not_grow(journal: Iterable[Entry]) -> list[str]:
    """Each body whose token is not larger than that of the body before it."""
    found: list[str] = []
    last: dict[str, int] = {}
    for entry in journal:
        if entry.what == "entered" and entry.cluster:
            if entry.token <= last.get(entry.cluster, 0):
                found.append(f"{entry.cluster}: token {entry.token} came after {last[entry.cluster]}")
            last[entry.cluster] = entry.token
    return found


def pauses(journal: Iterable[Entry], task: str) -> Iterator[tuple[str, float]]:
    """The cluster, and the seconds from each good end of a task to the next time it was entered."""
    ended: dict[str, float] = {}
    for entry in journal:
        if entry.task != task:
            continue
        if entry.what == "entered" and entry.cluster in ended:
            yield entry.cluster, entry.at - ended.pop(entry.cluster)
        elif entry.what == "left" and entry.detail == "well":
            ended[entry.cluster] = entry.at


def lost(journal: Iterable[Entry]) -> list[str]:
    """The runs that were asked for, and neither ran to their end nor were dropped for a reason."""
    journal = list(journal)
    ended = {entry.task_id for entry in journal if entry.what in _ENDS}
    return sorted({entry.task_id for entry in journal if entry.what == "asked"} - ended)


def overlapping_rounds(journal: Iterable[Entry]) -> list[str]:
    """Each round that began while another one of its component had not ended."""
    found: list[str] = []
    running: dict[str, Entry] = {}
    for entry in journal:
        before = running.get(entry.task)
        if entry.what == "killed":
            running = {component: round_ for component, round_ in running.items() if round_.pid != entry.pid}
        elif entry.what == "began":
            if before:
                found.append(f"{_whose(entry)} began beside {_whose(before)}")
            running[entry.task] = entry
        elif entry.what == "ended":
            if before is None or (before.pid, before.token) != (entry.pid, entry.token):
                found.append(f"{_whose(entry)} was still running after it should have ended")
            else:
                del running[entry.task]
    return found


def terms_that_did_not_grow(journal: Iterable[Entry]) -> list[str]:
    """Each round of a smaller term than the round before it, or of the same term in another process."""
    found: list[str] = []
    last: dict[str, Entry] = {}
    for entry in journal:
        if entry.what == "began":
            before = last.get(entry.task, entry)
            if entry.token < before.token or (entry.token == before.token and entry.pid != before.pid):
                found.append(f"{_whose(entry)} came after {_whose(before)}")
            last[entry.task] = entry
    return found


def take_over(journal: Iterable[Entry], what: str, name: str) -> float | None:
    """Seconds from the kill of a process to the first time that another one does what only it had done.

    Args:
        journal: what happened, in order.
        what: ``elected``, or ``began`` for the first round.
        name: of what is led.

    Returns:
        None where there was no such thing.
    """
    leader, killed_at = 0, None
    for entry in journal:
        if entry.what == what and entry.task == name:
            if killed_at is not None and entry.pid != leader:
                return entry.at - killed_at
            leader = entry.pid
        elif entry.what == "killing" and entry.pid == leader:
            killed_at = entry.at
    return None


def sent_by_followers(journal: Iterable[Entry], task: str) -> list[str]:
    """What beat sent though another beat had been elected."""
    leader = 0
    found: list[str] = []
    for entry in journal:
        if entry.what == "elected" and entry.task == BEAT:
            leader = entry.pid
        elif entry.what == "asked" and entry.task == task and entry.pid != leader:
            found.append(f"{task} {entry.task_id} was sent by {entry.pid} while {leader} led")
    return found


def interrupted(journal: Iterable[Entry]) -> list[tuple[Entry, Entry | None]]:
    """Each body that was killed, and how its run ended in spite of that; None where it did not."""
    running: dict[int, Entry] = {}
    killed: list[Entry] = []
    ends: dict[str, Entry] = {}
    for entry in journal:
        if entry.what == "entered":
            running[entry.pid] = entry
        elif entry.what == "killed" and entry.pid in running:
            killed.append(running.pop(entry.pid))
        elif entry.what in _ENDS:
            running.pop(entry.pid, None)
            ends[entry.task_id] = entry
    return [(body, ends.get(body.task_id)) for body in killed]


def failures(journal: Iterable[Entry]) -> list[str]:
    """Each body that raised something."""
    return [_who(entry) for entry in journal if entry.what == "left" and entry.detail != "well"]


def failed_rounds(journal: Iterable[Entry]) -> list[str]:
    """Each round that raised something."""
    return [_whose(entry) for entry in journal if entry.what == "ended" and entry.detail != "well"]


def promises(
    journal: Sequence[Entry],
    *,
    refresh: str,
    discover: str,
    component: str,
    every: float,
    quiet: float,
    leader_ttl: float,
    unanswered: int | None,
) -> list[Promise]:
    """All of it.

    Args:
        journal: what happened, in order.
        refresh: the task that leaves a quiet period.
        discover: the task that the leading beat sends.
        component: what one worker of many runs.
        every: how often it does, in seconds.
        quiet: the length of the quiet period, in seconds.
        leader_ttl: the ttl of the leader's lease, in seconds.
        unanswered: how many runs have no final state for those who wait; None: they were not counted.
    """
    return [
        _none("a cluster has one body at a time", "overlapping bodies", overlaps(journal)),
        _none(
            "each lease has a larger token than the one before",
            "tokens that did not grow",
            tokens_that_did_not_grow(journal),
        ),
        _quiet([seconds for _, seconds in pauses(journal, refresh)], quiet),
        _take_over(
            "another beat leads within {bound:g} s of the leader's crash",
            take_over(journal, "elected", BEAT),
            leader_ttl + TAKE_OVER_GRACE,
        ),
        _flood(journal),
        _none("the leading beat alone sends", "sent by others", sent_by_followers(journal, discover)),
        _none("one worker at a time runs the component", "overlapping rounds", overlapping_rounds(journal)),
        _none(
            "each worker that runs it has a larger term than the one before",
            "terms that did not grow",
            terms_that_did_not_grow(journal),
        ),
        _take_over(
            "another worker runs it within {bound:g} s of the crash of its worker",
            take_over(journal, "began", component),
            leader_ttl + TAKE_OVER_GRACE + every,
        ),
        _none("no round failed", "failed rounds", failed_rounds(journal)),
        _found(journal, discover, component),
        _none("each run that was asked for is run, or dropped for a reason", "lost runs", lost(journal)),
        _none("no body failed", "failed bodies", failures(journal)),
        _answers(unanswered),
        _interrupted(interrupted(journal)),
    ]


def _who(body: Entry) -> str:
    return f"{body.task} {body.task_id} (token {body.token}, pid {body.pid})"


def _whose(round_: Entry) -> str:
    return f"a round of {round_.task} (term {round_.token}, pid {round_.pid})"


def _none(text: str, what: str, found: Sequence[str]) -> Promise:
    return Promise(text, not found, f"{what}: {len(found)}" + "".join(f"\n    {line}" for line in found))


def _flood(journal: Iterable[Entry]) -> Promise:
    """Whether the promises were put to the test at all."""
    reasons = Counter(entry.detail for entry in journal if entry.what == "dropped")
    return Promise(
        "what is not needed is dropped, for both reasons",
        reasons["held"] > 0 and reasons["cooling"] > 0,
        f"dropped as held: {reasons['held']}, as cooling: {reasons['cooling']}",
    )


def _answers(missing: int | None) -> Promise:
    seen = "not counted" if missing is None else missing
    return Promise("whoever waits for a run gets an answer", missing == 0, f"runs without an answer: {seen}")


def _quiet(seconds: Sequence[float], quiet: float) -> Promise:
    kept = sum(pause >= quiet for pause in seconds)
    shortest = f", the shortest pause {min(seconds):.2f} s" if seconds else ""
    return Promise(
        f"after a good refresh a cluster is left in peace for {quiet:g} s",
        bool(seconds) and kept == len(seconds),
        f"quiet periods kept: {kept} of {len(seconds)}{shortest}",
    )


def _take_over(text: str, seconds: float | None, bound: float) -> Promise:
    return Promise(
        text.format(bound=bound),
        seconds is not None and seconds <= bound,
        "nobody took over" if seconds is None else f"take-over: {seconds:.2f} s",
    )


def _found(journal: Iterable[Entry], discover: str, component: str) -> Promise:
    """Whether both ways to discover discover anything."""
    times = Counter(entry.task for entry in journal if entry.found)
    return Promise(
        "the replica that nobody wrote down is found by the task of beat, and by the component",
        times[discover] > 0 and times[component] > 0,
        f"found by the task: {times[discover]} times, by the component: {times[component]} times",
    )


def _interrupted(found: Sequence[tuple[Entry, Entry | None]]) -> Promise:
    ends = [f"{body.task_id[:8]} {_end(body, end)}" for body, end in found]
    return Promise(
        "a run whose process was killed comes back",
        bool(found) and all(end is not None for _, end in found),
        f"killed in mid-refresh: {'; '.join(ends) or 'none'}",
    )


def _end(body: Entry, end: Entry | None) -> str:
    if end is None:
        return "never came back"
    after = f"came back, and {end.at - body.at:.1f} s after its first start"
    if end.what == "left":
        return f"{after} it had run again"
    return f"{after} it was dropped as {end.detail}: {_WHY[end.detail]}"
