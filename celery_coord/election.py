"""Leader election: of many that campaign one leads, and it knows when it does not.

States, for one candidate:

    follower ──campaign: the lease is granted──▶ leader
        ▲                                          │
        └──resigned · lease gone · unrenewed ──────┘

A leader's *term* is one lease on the election's name; its number is the lease's fencing token, so terms only grow.
It is renewed every third of its ttl by a thread of its own, apart from the work that it allows.

*Trust window.* `Election.leads` is true from the grant until the last renewal's request plus the ttl, less a margin,
all on the candidate's own monotonic clock. It costs no round trip, and the store gives the lease to nobody else before
the window has closed, so two candidates never both lead by their own clocks. Unsure means no.

What each failure does:

=============================  ===========================================================================
the leader crashes             a follower takes over when the lease ends: within the ttl and a second
the leader resigns             the lease ends at once and followers are woken
the leader is paused           the window closes by its clock; on waking it finds that it does not lead
the store cannot be reached    the leader leads until its window closes, then follows; followers stay followers
the store forgets the lease    the leader follows at its next renewal; until then its window is open (see below)
the work is stuck              `healthy` says no, the leader resigns
=============================  ===========================================================================

Not promised: one leader across a store that forgets (FLUSHALL, a fail-over that lost the write). Another can then
be elected while the old window is still open, for a third of the ttl at most. Terms still grow, so a check of
the term at what is acted on (fencing) tells the two apart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from celery_coord.clock import Clock
from celery_coord.errors import StoreError
from celery_coord.events import Event, LeaderDeposed, LeaderElected, LeaderObserved, LeaderResigned, StoreFailed
from celery_coord.keys import LEADER_PREFIX
from celery_coord.lease import RENEW_AFTER, Held, Lease, Owner
from celery_coord.renewal import RETRY_AFTER, Holding
from celery_coord.stores import Store

#: A follower asks again this long after the lease that it met should have ended, in seconds.
_AFTER_EXPIRY = 0.02
#: And at least this often, should the end of the lease have come early and unheard.
_LONGEST_OBSERVATION = 1.0


class Election:
    """One candidate for the leadership of a name.

    Args:
        name: what is led; candidates of one name compete.
        store: who decides.
        clock: the candidate's clock.
        ttl: how long a lease outlives its last renewal, in seconds.
        label: who the candidate is, in words: others see it.
        notify: is told when it is elected, resigns or is deposed.
        healthy: asked before each renewal; a leader that is not healthy resigns.
    """

    def __init__(
        self,
        name: str,
        *,
        store: Store,
        clock: Clock,
        ttl: float,
        label: str,
        notify: Callable[[Event], None],
        healthy: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self._key = f"{LEADER_PREFIX}{name}"
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._label = label
        self._notify = notify
        self._healthy = healthy
        self._term: Holding | None = None
        self._met: Held | None = None
        self._answers = True
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def leads(self) -> bool:
        """Whether this candidate leads; costs no round trip, and unsure means no."""
        term = self._term
        return term is not None and not term.lost

    @property
    def term(self) -> int | None:
        """The number of the term in which this candidate leads; None while it does not. Terms only grow."""
        term = self._term
        return None if term is None or term.lost else term.token

    def observe(self) -> Held | None:
        """Whom this candidate met when it last asked for the leadership; None where it leads or never asked."""
        return None if self.leads else self._met

    def campaign(self) -> None:
        """Begin to campaign, in a thread of its own, until `resign`."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name=f"celery_coord-{self.name}", daemon=True)
            self._thread.start()

    def resign(self, timeout: float = 5.0) -> None:
        """Stop campaigning, and give up the leadership, if this candidate leads.

        May be called twice, and from a signal handler: the thread that campaigns does what there is to do.

        Args:
            timeout: how long to wait for that, in seconds; a lease that could not be given up ends by itself.
        """
        self._stop.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def round(self) -> float:
        """One round: renew, or ask for the leadership.

        Returns:
            Seconds until the next round is due.
        """
        term = self._term
        if term is None:
            return self._ask()
        if not self._healthy():
            self._give_up(term)
            return self._ttl
        if term.lost:
            self._depose(term, "unrenewed")
            return 0.0
        return self._renew(term)

    def _ask(self) -> float:
        asked_at = self._clock.monotonic()
        if not self._healthy():
            return self._ttl * RENEW_AFTER
        try:
            answer = self._store.acquire(
                self._key, Owner.new(self.name), self._ttl, heed_cooldown=False, label=self._label
            )
        except StoreError as error:
            return self._away("campaigning for", error)
        self._answers = True
        if isinstance(answer, Lease):
            self._term = Holding(answer, self._clock, asked_at=asked_at, max_hold=float("inf"))
            self._met = None
            self._notify(LeaderElected(self.name, answer.owner, answer.token))
            return self._ttl * RENEW_AFTER
        assert isinstance(answer, Held)  # noqa: S101  no quiet period is heeded here, and no end is remembered
        if self._met is None or self._met.holder != answer.holder:
            self._notify(LeaderObserved(self.name, answer.holder, answer.label))
        self._met = answer
        return _LONGEST_OBSERVATION if answer.left is None else answer.left + _AFTER_EXPIRY

    def _renew(self, term: Holding) -> float:
        asked_at = self._clock.monotonic()
        try:
            [still_ours] = self._store.renew([term.lease])
        except StoreError as error:
            return self._away("renewing the leadership of", error)
        self._answers = True
        if not still_ours:
            self._depose(term, "gone")
            return 0.0
        term.renewed(asked_at)
        return self._ttl * RENEW_AFTER

    def _away(self, doing: str, error: StoreError) -> float:
        """The store does not answer: told once, until it does. Returns the seconds until the next try."""
        if self._answers:
            self._answers = False
            self._notify(StoreFailed(f"{doing} {self.name}", str(error)))
        return self._ttl * RETRY_AFTER

    def _depose(self, term: Holding, why: str) -> None:
        self._term = None
        self._notify(LeaderDeposed(self.name, term.lease.owner, term.token, why))

    def _give_up(self, term: Holding) -> None:
        self._term = None  # before the store is asked: whoever acts now must already find that it does not lead
        try:
            was_ours = self._store.settle(term.lease)
        except StoreError as error:
            self._notify(StoreFailed(f"resigning from {self.name}, whose lease now ends by itself", str(error)))
            was_ours = True
        if was_ours:
            self._notify(LeaderResigned(self.name, term.lease.owner, term.token))
        else:
            self._notify(LeaderDeposed(self.name, term.lease.owner, term.token, "gone"))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._pause(self.round())
            except Exception as error:  # noqa: BLE001  a candidate whose thread died would never lead again
                self._notify(StoreFailed(f"campaigning for {self.name}", f"{type(error).__name__}: {error}"))
                self._stop.wait(self._ttl * RETRY_AFTER)
        if self._term is not None:
            self._give_up(self._term)
        self._thread = None

    def _pause(self, seconds: float) -> None:
        if self._met is None:
            self._stop.wait(seconds)
            return
        try:
            self._store.wait(self._key, min(seconds, _LONGEST_OBSERVATION))
        except StoreError as error:
            self._stop.wait(min(seconds, self._away("observing", error)))
