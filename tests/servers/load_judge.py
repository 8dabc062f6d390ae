"""The judge of a load: from what runs saw to what was wrong with it. Knows no server and no clock.

What must hold, whatever was done to the servers:

* no two bodies of one key trust in their lease at the same instant;
* of two leases of one key, the one that was asked for after the other was granted has the larger token;
* the body of a run that was refused, or that the store did not answer, never starts; that of another starts once;
* every run comes to an end.

Only the first has an exception, where the docs say so: a promotion that lost writes. It has a list of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

RAN, REFUSED, UNANSWERED = "ran", "refused", "unanswered"


@dataclass(slots=True)
class Body:
    """A body, as it saw itself; all instants are of one monotonic clock.

    Attributes:
        key: what it held.
        owner: whose body it is.
        token: its fencing token.
        asked: when its lease was about to be asked for.
        began: when it began.
        trusted_till: the last instant at which it looked and found its lease not lost; that of `began` where it never
            did.
        lost: whether it found its lease lost in the end.
    """

    key: str
    owner: str
    token: int
    asked: float
    began: float
    trusted_till: float
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a run: `RAN`, `REFUSED` or `UNANSWERED`."""

    key: str
    owner: str
    ended: float
    outcome: str


@dataclass
class History:
    """Everything that the judge is told."""

    bodies: list[Body] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    def ran_since(self, instant: float) -> set[str]:
        """The keys on which a body has begun after an instant."""
        return {body.key for body in self.bodies if body.asked > instant}


@dataclass
class Verdict:
    """What the judge found.

    Attributes:
        overlaps: two that trusted at once.
        wrong: everything else that must not be.
    """

    overlaps: list[str]
    wrong: list[str]

    @property
    def objections(self) -> list[str]:
        """Everything."""
        return [*self.overlaps, *self.wrong]


def judge(history: History) -> Verdict:
    """Compare what happened with what must hold."""
    of_key: dict[str, list[Body]] = defaultdict(list)
    for body in history.bodies:
        of_key[body.key].append(body)
    wrong = [*history.stuck, *_bodies_without_right(history)]
    overlaps: list[str] = []
    for bodies in of_key.values():
        overlaps += _overlaps(bodies)
        wrong += _tokens_that_shrink(bodies)
    return Verdict(overlaps, wrong)


def _overlaps(bodies: Sequence[Body]) -> Iterator[str]:
    """Each body against the one that was trusted the longest of all that began before it."""
    longest: Body | None = None
    who_trusted = (body for body in bodies if body.trusted_till > body.began)
    for body in sorted(who_trusted, key=lambda body: body.began):
        if longest is not None and body.began < longest.trusted_till:
            seconds = min(longest.trusted_till, body.trusted_till) - body.began
            yield (
                f"{body.key}: {body.owner} (token {body.token}) and {longest.owner} (token {longest.token}) "
                f"both trusted for {seconds:.3f} s, from {body.began:.3f}"
            )
        if longest is None or body.trusted_till > longest.trusted_till:
            longest = body


def _tokens_that_shrink(bodies: Sequence[Body]) -> Iterator[str]:
    for one, other in combinations(sorted(bodies, key=lambda body: body.asked), 2):
        if one.began < other.asked and one.token >= other.token:
            yield f"{one.key}: token {other.token} was granted after {one.token}"
    if len({body.token for body in bodies}) < len(bodies):
        yield f"{bodies[0].key}: two leases have one token"


def _bodies_without_right(history: History) -> Iterator[str]:
    outcomes = {run.owner: run.outcome for run in history.runs}
    began = [body.owner for body in history.bodies]
    for owner in began:
        if outcomes.get(owner) != RAN:
            yield f"the body of {owner} began, and its run was {outcomes.get(owner, 'never ended')}"
    for owner, outcome in outcomes.items():
        if outcome == RAN and began.count(owner) != 1:
            yield f"the run of {owner} was admitted, and {began.count(owner)} bodies began"
