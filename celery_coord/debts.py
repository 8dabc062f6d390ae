"""What a beat has claimed and not sent, and could not give back yet.

A leader that was paused between a claim and its message, or whose publish failed after it was deposed, gives the claim
back. Where the next leader has moved the entry on already there is nothing to give back: then it writes down that the
instant is *owed*, and the one who leads sends it. A claim of which it never heard whether it was granted is given back
as well, and never owed: it may be that it was none.
"""

from __future__ import annotations

from dataclasses import dataclass

from celery_coord.errors import StoreError
from celery_coord.leader import RUN
from celery_coord.lease import Lease
from celery_coord.stores import Store

#: What stands before an instant that is owed, and after that the instant and the entry.
OWED = "owed:"


@dataclass(frozen=True, slots=True)
class Debt:
    """One instant that was claimed and not sent.

    Attributes:
        entry: its name.
        lease: under which it was claimed.
        claimed: what was written down for that.
        known: what stood there before.
        due: the instant, in seconds since the epoch; None where it cannot be owed.
    """

    entry: str
    lease: Lease
    claimed: str
    known: str
    due: float | None


class Debts:
    """The debts of this process, whichever term they are of.

    Args:
        store: where they are settled.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open: list[Debt] = []

    def add(self, debt: Debt) -> None:
        """Settle it as soon as the store answers."""
        self._open.append(debt)
        self.settle()

    def settle(self) -> None:
        """Settle what there is; what the store does not answer is asked again the next time."""
        while self._open:
            try:
                self._settle(self._open[0])
            except StoreError:
                return
            del self._open[0]

    def _settle(self, debt: Debt) -> None:
        name = RUN + debt.entry
        answer = self._store.record(debt.lease, name, debt.known, was=debt.claimed, by_holder=False)
        if not answer.by_us and debt.due is not None:
            fact = f"{OWED}{debt.due:.6f}:{debt.entry}"
            self._store.record(debt.lease, fact, f"{debt.due:.6f}", was="", by_holder=False)


def owed(fact: str) -> tuple[float, str]:
    """The instant and the entry that a fact names."""
    due, _, entry = fact.removeprefix(OWED).partition(":")
    return float(due), entry
