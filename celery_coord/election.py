"""Leader election: of many that campaign one leads, and it knows when it does not.

States, for one candidate:

    follower ──campaign: the lease is granted──▶ leader ──limit reached · asked to step down──▶ retiring
        ▲                                          │                                              │
        └──resigned · lease gone · unrenewed ──────┴──────────────────────────────────────────────┘

A leader's *term* is one lease on the election's name; its number is the lease's fencing token, so terms only grow.
It is renewed every third of its ttl by a thread of its own, apart from the work that it allows.

*Trust window.* `Candidate.leads` is true from the grant until the last renewal's request plus the ttl, less a margin,
all on the candidate's own monotonic clock. It costs no round trip, and the store gives the lease to nobody else before
the window has closed, so two candidates never both lead by their own clocks. Unsure means no.

What each failure does:

=============================  ===========================================================================
the leader crashes             a follower takes over when the lease ends: within the ttl and a second
the leader resigns             the lease ends at once and followers are woken, more than one: the first may be dead
the leader is paused           the window closes by its clock; on waking it finds that it does not lead
the store cannot be reached    the leader leads until its window closes, then follows; followers stay followers
the store forgets the lease    the leader follows at its next renewal; until then its window is open (see below)
the work is stuck              `healthy` says no, the leader resigns, and does not campaign until it says yes
terms end soon                 after a term shorter than a ttl that was not meant to end, a candidate holds back: for a
                               third of the ttl, then twice that, up to three ttls; so leadership does not flap
=============================  ===========================================================================

*Handing over.* A term that has reached its limit, or whose leader was asked to step down, is *retiring*: it still
leads, so that the work can be brought to an end and `step_down` called. Where nobody has said that he will
(`steps_down_itself`), it ends by itself a ttl later. After a limit the candidate holds back for a tenth of the ttl,
after a request for a ttl, so that another can be elected.

Not promised: one leader across a store that forgets (FLUSHALL, a fail-over that lost the write). Another can then
be elected while the old window is still open, for a third of the ttl at most. Terms still grow, so a check of
the term at what is acted on (fencing) tells the two apart.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from celery_coord.clock import Clock
from celery_coord.errors import StoreError
from celery_coord.events import (
    ComponentFailed,
    Event,
    LeaderDeposed,
    LeaderElected,
    LeaderHeldBack,
    LeaderObserved,
    LeaderResigned,
    StoreFailed,
)
from celery_coord.keys import LEADER_PREFIX
from celery_coord.leader import ACT
from celery_coord.lease import RENEW_AFTER, Held, Lease, Owner
from celery_coord.renewal import RETRY_AFTER, Holding
from celery_coord.stores import Store

#: Why a leader resigns, as its event says it.
ENDED, STUCK, UNABLE, LIMIT, ASKED = "ended", "stuck", "unable", "limit", "asked"

#: A follower asks again this long after the lease that it met should have ended, in seconds.
_AFTER_EXPIRY = 0.02
#: And at least this often, should the end of the lease have come early and unheard.
_LONGEST_OBSERVATION = 1.0
#: How often one that waits for its election looks where its thread has not said yet that it was lost, in seconds.
_GLANCE = 0.05
#: How often it is told that the store still does not answer, in seconds.
_TELL_EVERY = 60.0
#: How many followers a resignation wakes: one of them may have died while it waited.
_WAKE = 8
#: For which part of the ttl one that leads no more lets others be faster, at least.
_LET_OTHERS = {LIMIT: 0.1, UNABLE: 0.1, ASKED: 1.0}
#: The ends that are meant: a term that ends so soon does not flap.
_MEANT = {ENDED, LIMIT, ASKED}
#: A candidate whose terms end soon holds back for this part of the ttl, then twice that, and so on, up to the second.
_HOLD_BACK, _LONGEST_HOLD_BACK = 1 / 3, 3.0


class Candidate:
    """One candidate for the leadership of a name.

    Args:
        name: what is led; candidates of one name compete.
        store: who decides.
        clock: the candidate's clock.
        ttl: how long a lease outlives its last renewal, in seconds.
        label: who the candidate is, in words: others see it.
        notify: is told when it is elected, resigns or is deposed.
        healthy: asked before each renewal; a leader that is not healthy resigns.
        term_limit: for how many seconds it leads at most before it lets another; None: no limit.
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
        term_limit: float | None = None,
    ) -> None:
        self.name = name
        self.ttl = ttl
        self._key = f"{LEADER_PREFIX}{name}"
        self._store = store
        self._clock = clock
        self._label = label
        self._notify = notify
        self._healthy = healthy
        self._term_limit = term_limit
        self._term: Holding | None = None
        self._elected_at = 0.0
        self._elected = threading.Event()
        self._retire_at: float | None = None
        self._ordered = ""
        self._act = ""
        self._met: Held | None = None
        self._asks_as = Owner.new(name)
        self._answers = True
        self._away_since = self._told_at = 0.0
        self._is_stuck = False
        self._short_terms = 0
        self._not_before = 0.0
        #: Whether somebody looks at `retiring` and calls `step_down` when the work has come to an end, whenever.
        self.steps_down_itself = False
        #: Why the leader should bring its work to an end and `step_down`; empty: it need not.
        self.retiring = ""
        self._stopping = False
        self._begins_or_ends = threading.Lock()
        # Put into by signal handlers as well: its `put` may interrupt itself, an Event's `set` may not.
        self._wakes: SimpleQueue[None] = SimpleQueue()
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

    @property
    def lease(self) -> Lease | None:
        """The lease of the term in which this candidate leads; None while it does not."""
        term = self._term
        return None if term is None or term.lost else term.lease

    @property
    def trusted_for(self) -> float:
        """For how many seconds the leadership can be believed in without a renewal; 0 while it does not lead."""
        term = self._term
        return 0.0 if term is None else max(0.0, term.trusted_for)

    @property
    def met(self) -> Held | None:
        """Whom this candidate met when it last asked for the leadership; None where it leads or never asked."""
        return None if self.leads else self._met

    @property
    def campaigns(self) -> bool:
        """Whether it campaigns, or leads."""
        return self._thread is not None and not self._stopping

    def campaign(self) -> None:
        """Begin to campaign, in a thread of its own, until `resign`."""
        if self.campaigns:
            return
        with self._begins_or_ends:
            self._stopping = False
            if self._thread is None:  # else one that was to end goes on
                self._thread = threading.Thread(target=self._run, name=f"celery_coord-{self.name}", daemon=True)
                self._thread.start()

    def wait(self, timeout: float | None) -> bool:
        """Wait until this candidate leads, or for so many seconds; whether it then does."""
        if self._elected.wait(timeout) and not self.leads:
            time.sleep(_GLANCE if timeout is None else min(timeout, _GLANCE))
        return self.leads

    def acted(self, what: str) -> None:
        """Something was done in this name: operators see it, after the next renewal."""
        self._act = f"{self._clock.time():.3f} {self.term} {what}"

    def step_down(self, why: str = UNABLE) -> None:
        """Do not lead any more from now on, and let others be faster; go on campaigning after that.

        Args:
            why: what the retiring term said, or that the work cannot be done here.
        """
        term = self._term
        if term is not None:
            self._ordered = why  # first: whoever finds the term lost must find out why
            term.known_lost = True
            self._wakes.put(None)

    def resign(self, timeout: float = 5.0) -> None:
        """Stop campaigning, and give up the leadership, if this candidate leads.

        May be called twice, and from a signal handler: the thread that campaigns does what there is to do.

        Args:
            timeout: how long to wait for that, in seconds; a lease that could not be given up ends by itself.
        """
        self._stopping = True
        term, thread = self._term, self._thread
        if term is not None:
            term.known_lost = True  # whatever keeps the thread from saying so
        self._wakes.put(None)
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(timeout)

    def round(self) -> float:
        """One round: renew, or ask for the leadership.

        Returns:
            Seconds until the next round is due.
        """
        term = self._term
        if term is None:
            return self._ask()
        if why := self._why_to_go(term):
            self._give_up(term, why)
            return 0.0
        if term.lost:
            self._depose(term, "unrenewed")
            return 0.0
        return self._renew(term)

    def _why_to_go(self, term: Holding) -> str:
        if self._ordered or self._stopping:
            return self._ordered or ENDED
        if term.lost:
            return ""
        if not self._is_well():
            return STUCK
        is_due = self._retire_at is not None and self._clock.monotonic() >= self._retire_at
        return self.retiring if is_due else ""

    def _is_well(self) -> bool:
        """Whether the work goes on; one that cannot say so does not."""
        try:
            return self._healthy()
        except Exception as error:  # noqa: BLE001  unsure means no
            if not self._is_stuck:
                self._notify(ComponentFailed(self.name, "healthy", f"{type(error).__name__}: {error}"))
            return False

    def _ask(self) -> float:
        asked_at = self._clock.monotonic()
        if not self._may_campaign():
            return min(_LONGEST_OBSERVATION, self.ttl * RENEW_AFTER)
        if asked_at < self._not_before:
            return self._not_before - asked_at
        try:
            answer = self._store.acquire(self._key, self._asks_as, self.ttl, heed_cooldown=False, label=self._label)
        except StoreError as error:
            # It asks as the same owner again: a store that was stalled may have granted what nobody waited for.
            return self._away("campaigning for", error)
        self._answers = True
        self._asks_as = Owner.new(self.name)
        if isinstance(answer, Lease):
            return self._begin(answer, asked_at)
        assert isinstance(answer, Held)  # noqa: S101  no quiet period is heeded here, and no end is remembered
        if self._met is None or self._met.holder != answer.holder:
            self._notify(LeaderObserved(self.name, answer.holder, answer.label))
        self._met = answer
        return _LONGEST_OBSERVATION if answer.left is None else answer.left + _AFTER_EXPIRY

    def _may_campaign(self) -> bool:
        """Whether the work can be done here; told once when it cannot."""
        is_stuck = not self._is_well()
        was_stuck, self._is_stuck = self._is_stuck, is_stuck
        if is_stuck and not was_stuck:
            self._notify(LeaderHeldBack(self.name, STUCK, None))
        return not is_stuck

    def _begin(self, lease: Lease, asked_at: float) -> float:
        self._ordered, self.retiring, self._retire_at = "", "", None
        self._elected_at = asked_at
        self._met = None
        self._term = Holding(lease, self._clock, asked_at=asked_at, max_hold=float("inf"))
        self._elected.set()
        self._notify(LeaderElected(self.name, lease.owner, lease.token, self._label))
        return self._until_next_round()

    def _renew(self, term: Holding) -> float:
        asked_at = self._clock.monotonic()
        [still_ours] = self._store.renew([term.lease])
        if isinstance(still_ours, StoreError):
            return self._away("renewing the leadership of", still_ours)
        self._answers = True
        if not still_ours:
            self._depose(term, "gone")
            return 0.0
        term.renewed(asked_at)
        try:
            self._exchange_words(term)
        except StoreError as error:
            return self._away("hearing what is asked of the leader of", error)
        return self._until_next_round()

    def _exchange_words(self, term: Holding) -> None:
        """Tell operators what was done, and hear what they ask for."""
        now = self._clock.monotonic()
        if not self.retiring and self._term_limit is not None and now >= self._elected_at + self._term_limit:
            self._retire(LIMIT, now)
        act, self._act = self._act, ""
        if act:
            self._store.record(term.lease, ACT, act)
        if not self.retiring and self._store.request(self._key) == str(term.token):
            self._retire(ASKED, now)

    def _retire(self, why: str, now: float) -> None:
        self.retiring = why
        self._retire_at = None if self.steps_down_itself else now + self.ttl

    def _until_next_round(self) -> float:
        """Until a renewal is due, or sooner where the term then reaches its limit or its end."""
        now, soonest = self._clock.monotonic(), self.ttl * RENEW_AFTER
        if self._retire_at is not None:
            return max(0.0, min(soonest, self._retire_at - now))
        if self._term_limit is not None:
            return max(0.0, min(soonest, self._elected_at + self._term_limit - now))
        return soonest

    def _away(self, doing: str, error: StoreError) -> float:
        """The store does not answer: told once a minute, until it does. Returns the seconds until the next try."""
        now = self._clock.monotonic()
        if self._answers:
            self._answers, self._away_since, self._told_at = False, now, -_TELL_EVERY
        if now >= self._told_at + _TELL_EVERY:
            self._told_at, lasted = now, now - self._away_since
            how_long = f", for {lasted:.0f} s" if lasted else ""
            self._notify(StoreFailed(f"{doing} {self.name}{how_long}", str(error)))
        # Not at the same instant as the others that met the same trouble.
        return self.ttl * RETRY_AFTER * random.uniform(0.5, 1.0)  # noqa: S311  not a secret

    def _depose(self, term: Holding, why: str) -> None:
        self._forget_term()
        self._notify(LeaderDeposed(self.name, term.lease.owner, term.token, why))
        self._hold_back(why)

    def _give_up(self, term: Holding, why: str) -> None:
        self._forget_term()  # before the store is asked: whoever acts now must already find that it does not lead
        try:
            was_ours = self._store.settle(term.lease, wake=_WAKE)
        except StoreError as error:
            self._notify(StoreFailed(f"resigning from {self.name}, whose lease now ends by itself", str(error)))
            self._notify(LeaderDeposed(self.name, term.lease.owner, term.token, "unsettled"))
        else:
            if was_ours:
                self._notify(LeaderResigned(self.name, term.lease.owner, term.token, why))
            else:
                self._notify(LeaderDeposed(self.name, term.lease.owner, term.token, "gone"))
        self._hold_back(why)

    def _forget_term(self) -> None:
        self._term = None
        self._ordered, self.retiring, self._retire_at = "", "", None
        self._elected.clear()

    def _hold_back(self, why: str) -> None:
        """Let others be faster, where this one would only lead again, or its terms end too soon."""
        is_short = self._clock.monotonic() - self._elected_at < self.ttl
        self._short_terms = self._short_terms + 1 if is_short and why not in _MEANT else 0
        seconds = self.ttl * min(_HOLD_BACK * 2.0 ** (self._short_terms - 1), _LONGEST_HOLD_BACK)
        seconds = max(seconds if self._short_terms else 0.0, _LET_OTHERS.get(why, 0.0) * self.ttl)
        if seconds:
            self._not_before = self._clock.monotonic() + seconds
            self._notify(LeaderHeldBack(self.name, why, seconds))

    def _run(self) -> None:
        while True:
            while not self._stopping:
                try:
                    self._pause(self.round())
                except Exception as error:  # noqa: BLE001  a candidate whose thread died would never lead again
                    self._notify(StoreFailed(f"campaigning for {self.name}", f"{type(error).__name__}: {error}"))
                    self._sleep(self.ttl * RETRY_AFTER)
            if self._term is not None:
                self._give_up(self._term, ENDED)
            with self._begins_or_ends:
                if self._stopping:
                    self._thread = None
                    return

    def _pause(self, seconds: float) -> None:
        if self._met is None:
            self._sleep(seconds)
            return
        try:
            self._store.wait(self._key, min(seconds, _LONGEST_OBSERVATION))
        except StoreError as error:
            self._sleep(min(seconds, self._away("observing", error)))

    def _sleep(self, seconds: float) -> None:
        """Until somebody has something to say."""
        if seconds > 0:
            try:
                self._wakes.get(timeout=seconds)
            except Empty:
                return
