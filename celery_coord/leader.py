"""Who leads, as the store knows it: the lease on the election's name, and what its holder wrote down."""

from __future__ import annotations

from dataclasses import dataclass

from celery_coord.keys import LEADER_PREFIX
from celery_coord.stores import Store

#: The name under which the last act of a leader is written down; and what stands before that of a schedule's entry.
ACT, RUN = "act", "run:"


@dataclass(frozen=True, slots=True)
class Leader:
    """Who leads, as the store knows it.

    Attributes:
        name: what is led.
        holder: the owner of the lease.
        label: who that is, in words.
        term: the number of the term.
        since: when it began, in seconds since the epoch, by the server's clock.
        left: the seconds until the lease ends if it is not renewed; None where it has no end.
        last_act: what was done last in this term, as far as it was written down; may be empty.
        last_act_at: when, in seconds since the epoch, by the clock of who did it; None where nothing is known.
    """

    name: str
    holder: str
    label: str
    term: int
    since: float
    left: float | None
    last_act: str = ""
    last_act_at: float | None = None


def leader_of(store: Store, name: str) -> Leader | None:
    """Who leads now; None where nobody does, or where what holds the name is no leader of ours.

    Raises:
        StoreError: the store does not answer.
    """
    key = f"{LEADER_PREFIX}{name}"
    held = store.look(key).held
    if held is None or held.token is None:
        return None
    acts = [_act(fact, value, held.token) for fact, value in store.records(key).items()]
    at, act = max((act for act in acts if act), default=(None, ""))
    # A token is the server's time in microseconds, unless the last one was larger.
    return Leader(name, held.holder, held.label, held.token, held.token / 1_000_000, held.left, act, at)


def _act(fact: str, value: str, term: int) -> tuple[float, str] | None:
    """When what was done in this term; None where it was another, or somebody else has written there."""
    at, of_term, what = [*value.split(" ", 2), "", ""][:3]
    if of_term != str(term) or not (fact == ACT or fact.startswith(RUN)):
        return None
    try:
        return float(at), what or fact.removeprefix(RUN)
    except ValueError:
        return None
