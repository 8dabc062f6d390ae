"""What the store knows of the entries of a schedule: when each ran last, as one leader writes it down in one term.

A last run is a fact of the election's key (`celery_coord.stores.Store.record`), as the text "instant term". It moves on
in one step of the store, from what this leader knew to what it now sends, and only while the store has the lease as its
own. What the store answers is what is known from then on; what this leader wrote and the store has forgotten counts all
the same, since nobody else may take it back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from celery_coord.clock import Clock
from celery_coord.debts import OWED, Debt, Debts, owed
from celery_coord.errors import StoreError
from celery_coord.leader import RUN
from celery_coord.lease import Lease
from celery_coord.stores import Store

#: In place of the term, where a last run was written down that was none: an entry that is new, or passed over.
NO_RUN = 0
#: What the store knows of an entry that is in the schedule no more is kept for so many seconds: a deploy may be undone.
_KEEP_UNKNOWN = 7 * 86400.0
#: How often that is looked at, in seconds.
_SWEEP_EVERY = 3600.0


class LastRuns:
    """The last runs as one leader knows them, in one term.

    Args:
        found: what the store knew when the term began.
        lease: asked for the lease of this term; None where it has ended.
        term: the number of this term.
        key: of the election.
        store: where they are.
        clock: this process's clock.
        debts: what was written down and could not be taken back yet.
        patience: for how long the store may take to answer, in seconds: what it hears of later is not written down.

    Attributes:
        owed: what others have claimed, could not send, and could not give back: facts with their values.
    """

    def __init__(
        self,
        found: Mapping[str, str],
        *,
        lease: Callable[[], Lease | None],
        term: int,
        key: str,
        store: Store,
        clock: Clock,
        debts: Debts,
        patience: float,
    ) -> None:
        self._lease = lease
        self._term = term
        self._key = key
        self._store = store
        self._clock = clock
        self._debts = debts
        self._patience = patience
        self._known: dict[str, str] = {}
        self.owed: dict[str, str] = {}
        self._paid: set[str] = set()
        self._unsure: dict[str, set[str]] = {}
        self._news: set[str] = set()
        self._sweep_at = 0.0
        #: The last lease under which something was written.
        self.written_under = lease()
        self._known = self._read(found)

    def known(self, name: str) -> str:
        """What is known of an entry, as the store has it; empty: nothing."""
        return self._known.get(name, "")

    def at(self, name: str) -> float | None:
        """When an entry ran last, in seconds since the epoch; None: that is not known."""
        known = self._known.get(name)
        return None if known is None else _when(known)

    def take_news(self, name: str) -> bool:
        """Whether what is known is another's word, and was not asked for since: it counts, also where it is less."""
        is_news = name in self._news
        self._news.discard(name)
        return is_news

    def claim(self, name: str, at: float) -> str:
        """Move the last run of an entry on, for all beats; why that was not to be, or an empty text."""
        why = self.write(name, at)
        if why == "claimed" and self._known.get(name) in self._unsure.get(name, ()):
            why = self.write(name, at)  # our own, whose answer was lost
        if not why:
            self._unsure.pop(name, None)
        return why

    def write(self, name: str, at: float, *, term: int | None = None) -> str:
        """Write the last run of an entry down.

        Args:
            name: of the entry.
            at: in seconds since the epoch.
            term: what stands in place of the number of this term.

        Returns:
            Why that was not to be: ``"lost"``, ``"store"`` or ``"claimed"``, by another; or an empty text.
        """
        lease = self._lease()
        if lease is None:
            return "lost"
        self.written_under = lease
        was, value = self.known(name), f"{at:.6f} {self._term if term is None else term}"
        try:
            answer = self._store.record(lease, RUN + name, value, was=was, within=self._patience)
            if not answer.by_us and not answer.lost and self._was_forgotten(was, answer.value):
                answer = self._store.record(lease, RUN + name, value, was=answer.value, within=self._patience)
        except StoreError:
            self._unsure.setdefault(name, set()).add(value)
            return "store"
        if answer.lost:
            return "lost"
        self._know(name, answer.value)
        if not answer.by_us:
            self._news.add(name)  # also where it is less than what we knew: another has taken its claim back
        return "" if answer.by_us else "claimed"

    def _was_forgotten(self, known: str, found: str) -> bool:
        """Whether the store knows less than this beat wrote under its lease, as after a fail-over that lost writes.

        What was written in this term nobody else may take back: the beat's own word counts, or it would send it again.
        """
        is_of_this_term = known.endswith(f" {self._term}")
        return is_of_this_term and (not found or _when(found) < _when(known))

    def _know(self, name: str, value: str) -> None:
        if value:
            self._known[name] = value
        else:
            self._known.pop(name, None)

    def take_back(self, name: str, before: str, *, last: float | None, due: float | None) -> None:
        """What was claimed and not sent is nobody's again, and so whoever leads then sends it: that may be another.

        Args:
            name: of the entry.
            before: what was known before the claim.
            last: what the inner scheduler knew then, in seconds since the epoch; None: nothing.
            due: the instant, in seconds since the epoch; None where it cannot be owed.
        """
        claimed = self._known[name]
        if not before and last is not None:  # another may have adopted the claim, and has to find what was before it
            before = f"{last:.6f} {NO_RUN}"
        assert self.written_under  # noqa: S101  it was claimed
        self._know(name, before)
        self._unsure.setdefault(name, set()).add(claimed)  # should the store not answer
        self._debts.add(Debt(name, self.written_under, claimed, before, due))
        self._news.add(name)

    def refresh(self) -> bool:
        """See what others have taken back: a publish that failed after its leader's end was that one's to claim.

        Returns:
            Whether anything is news.

        Raises:
            StoreError: the store does not answer.
        """
        now = self._read(self._store.records(self._key))
        for name, value in self._known.items():
            is_our_own = now.get(name) in self._unsure.get(name, ())  # whose answer was lost
            if is_our_own or self._was_forgotten(value, now.get(name, "")):
                now[name] = value
        news = {name for name, value in self._known.items() if now.get(name) != value}
        if news:
            self._known = now
            self._news |= news
        return bool(news)

    def _read(self, found: Mapping[str, str]) -> dict[str, str]:
        """The last runs in what the store knows; and what is owed, or was and is or has been paid."""
        facts = {fact: value for fact, value in found.items() if fact.startswith(OWED)}
        self.owed = {fact: value for fact, value in facts.items() if " " not in value}
        self._paid = facts.keys() - self.owed.keys()
        return {fact.removeprefix(RUN): value for fact, value in found.items() if fact.startswith(RUN)}

    def pay(self, fact: str, value: str, send: Callable[[], object]) -> None:
        """Send what is owed, if nobody else has, or does at this moment. What cannot be sent is owed again.

        Args:
            fact: names the instant and the entry.
            value: of that fact.
            send: sends the message; may raise anything.

        Raises:
            StoreError: the store does not answer.
            Exception: what `send` raised.
        """
        lease = self._lease()
        paid = f"{value} {self._term}"
        if lease is None or not self._store.record(lease, fact, paid, was=value, within=self._patience).by_us:
            return
        try:
            send()
        except Exception:  # seen at the next look
            self._store.record(lease, fact, value, was=paid, by_holder=False)
            raise
        # What is paid stays until it is swept: who owed it may not have heard that this is known, and say it again.

    def sweep(self, names: Collection[str], *, keep: Callable[[Mapping[str, float]], Collection[str]]) -> None:
        """Once in a while, forget entries that were taken out of the schedule long ago.

        Args:
            names: what is in the schedule.
            keep: those of the others, with their last runs, that are not to be forgotten; may raise anything.

        Raises:
            StoreError: the store does not answer.
        """
        now, lease = self._clock.time(), self._lease()
        if now < self._sweep_at or lease is None:
            return
        self._sweep_at = now + _SWEEP_EVERY
        last_runs = {name: _when(value) for name, value in self._known.items()}
        old = {name: at for name, at in last_runs.items() if name not in names and at < now - _KEEP_UNKNOWN}
        gone = old.keys() - keep(old)
        paid = {fact for fact in self._paid if owed(fact)[0] < now - _KEEP_UNKNOWN}
        if (gone or paid) and self._store.erase(lease, [*(RUN + name for name in gone), *paid]):
            self._paid -= paid
            for name in gone:
                del self._known[name]

    def end(self) -> None:
        """The term is over: what was asked for, and never answered, is given back if it was granted."""
        for name, values in self._unsure.items():
            known = self.known(name)
            for value in values - {known}:
                if self.written_under is not None:
                    self._debts.add(Debt(name, self.written_under, value, known, None))


def _when(record: str) -> float:
    """The time that a last run begins with, in seconds since the epoch."""
    return float(record.partition(" ")[0])
