"""The keeper: renews all leases of a process in batches, and knows when one is lost.

One thread a process, started with the first lease. Each lease is renewed every third of its ttl, together with
those that come due about then, in one round trip. A renewal that fails is tried again, sooner, until the holder's own
clock says that the lease can no longer be believed in; then it is *lost*. Nobody needs to ask the store to know that.

A lease is taken off the keeper's list before it is settled. A renewal that is under way at that moment does no
harm: the store renews for an owner only, and an owner is never used twice.

Not promised: a thread that runs while one C call holds the interpreter, or a greenlet beside one that computes.
There the lease runs out, and the holder finds it lost when it next looks.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable

from celery_coord.clock import Clock
from celery_coord.errors import LeaseLost, StoreError
from celery_coord.events import Event, LeaseLost as LeaseLostEvent, StoreFailed
from celery_coord.lease import RENEW_AFTER, Lease, trusted_until
from celery_coord.stores import Store

#: After a failed renewal the next try comes when this part of the ttl has passed, or half of it.
RETRY_AFTER = 1 / 12
#: Leases that come due within this part of their ttl go into the batch as well.
_BATCH_WITHIN = 1 / 6
#: What the store did not answer is asked again after so many seconds.
_ASK_AGAIN_AFTER = 1.0
_NEVER = float("inf")
_PAUSE_AFTER_SURPRISE = 1.0


class Holding:
    """A lease as its holder sees it: the live side of a `Lease`.

    What `celery_coord.current_lease` returns. Safe to hand to threads that the body starts.

    Args:
        lease: what the store granted.
        clock: the holder's clock.
        asked_at: when the request was about to be sent, on that clock.
        max_hold: for how long it is renewed at most, in seconds.
    """

    __slots__ = ("_clock", "_trusted_until", "ended", "known_lost", "lease", "on_lost", "renew_at", "renew_until")

    def __init__(self, lease: Lease, clock: Clock, *, asked_at: float, max_hold: float) -> None:
        self.lease = lease
        self.renew_at = asked_at + lease.ttl * RENEW_AFTER
        self.renew_until = asked_at + max_hold
        self._clock = clock
        self.known_lost = False
        self.ended = False
        self.on_lost: Callable[[], None] | None = None
        self._trusted_until = trusted_until(asked_at, lease.ttl)

    @property
    def key(self) -> str:
        """The name of what is guarded."""
        return self.lease.key

    @property
    def token(self) -> int:
        """The fencing token: grows with every lease of the key. Store it with what you write; refuse smaller ones."""
        return self.lease.token

    @property
    def lost(self) -> bool:
        """Whether the lease is gone, or can no longer be believed to be there. Costs no round trip."""
        return self.known_lost or self._clock.monotonic() >= self._trusted_until

    def ensure(self) -> None:
        """Go on only while the lease is held; call it before what must not happen twice.

        Raises:
            LeaseLost: it is not.
        """
        if self.lost:
            raise LeaseLost(self.lease.key, self.lease.owner)

    def renewed(self, asked_at: float) -> None:
        """The store said that the lease lasts its ttl from then."""
        self._trusted_until = trusted_until(asked_at, self.lease.ttl)
        self.renew_at = asked_at + self.lease.ttl * RENEW_AFTER

    @property
    def why_lost(self) -> str:
        """Why it is lost, where the store did not say that it is gone: ``"max_hold"`` or ``"unrenewed"``."""
        return "max_hold" if self._clock.monotonic() >= self.renew_until else "unrenewed"

    @property
    def trusted_for(self) -> float:
        """The seconds for which the lease can still be believed in; 0 or less when it is lost."""
        return 0.0 if self.known_lost else self._trusted_until - self._clock.monotonic()

    @property
    def next_look(self) -> float:
        """When the keeper must look again: to renew it or, past its bound or its trust, to call it lost."""
        return min(self.renew_at, self._trusted_until) if self.renew_at < self.renew_until else self._trusted_until


class _Later:
    """What is left to do when the store answers again."""

    __slots__ = ("act", "at", "until")

    def __init__(self, act: Callable[[], bool], at: float, until: float) -> None:
        self.act = act
        self.at = at
        self.until = until


#: The keepers of this process that are not to be left alone by its end.
_awaited: set[Keeper] = set()
os.register_at_fork(after_in_child=_awaited.clear)  # what a parent has left to do is the parent's


def finish(within: float) -> None:
    """Wait, as this process ends, until the store has heard of the bodies that have ended here.

    Args:
        within: for how long at most, in seconds. What is not done by then is not done.
    """
    until = time.monotonic() + within
    for keeper in list(_awaited):
        keeper.finish(until - time.monotonic())


class Keeper:
    """Renews what it is given until that is forgotten or lost.

    Args:
        store: where the leases are.
        clock: the holder's clock.
        notify: is told of every loss.
    """

    def __init__(self, store: Store, clock: Clock, notify: Callable[[Event], None]) -> None:
        self._store = store
        self._clock = clock
        self._notify = notify
        self._holdings: dict[str, Holding] = {}
        self._later: deque[_Later] = deque()  # in the order in which they are due
        self._later_not_before = 0.0
        # A signal may raise anywhere in a worker's child. This lock is entered as it is, in one step: the Condition's
        # own way in is Python, and an exception there would keep the lock taken for ever.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._all_done = threading.Condition(self._lock)
        self._awaited: set[_Later] = set()
        self._keeps = False
        self._next_at = _NEVER
        self._due_since_look = _NEVER

    def watch(self, holding: Holding) -> None:
        """Renew a lease from now on."""
        with self._lock:
            self._holdings[holding.lease.owner] = holding
            self._look_at(holding.renew_at)

    def do_later(self, act: Callable[[], bool], *, until: float, at_once: bool = False, awaited: bool = True) -> None:
        """Do what the store did not answer, again and again, until it does.

        Args:
            act: raises `StoreError` where the store still does not answer; else it says whether all is done.
            until: when there is nothing to do any more, on the holder's clock.
            at_once: whether it is tried without a pause first.
            awaited: whether a process that ends waits a while for it; see `finish`.
        """
        with self._lock:
            now = self._clock.monotonic()
            later = _Later(act, now if at_once else now + _ASK_AGAIN_AFTER, until)
            if at_once:
                self._later.appendleft(later)
            else:
                self._later.append(later)
            if awaited:
                self._awaited.add(later)
                _awaited.add(self)
            self._look_at(later.at)

    def finish(self, within: float) -> None:
        """Wait until what is awaited is done, for so many seconds at most."""
        with self._lock:
            self._all_done.wait_for(lambda: not self._awaited, max(0.0, within))

    def _look_at(self, at: float) -> None:
        """See to it that there is a round then; under the lock."""
        self._due_since_look = min(self._due_since_look, at)
        if not self._keeps:  # the thread says so itself: a signal may have kept it from starting
            threading.Thread(target=self._keep, name="celery_coord-keeper", daemon=True).start()
        elif at < self._next_at:
            self._changed.notify()

    def forget(self, owner: str) -> None:
        """Renew the lease of an owner no more."""
        with self._lock:
            self._holdings.pop(owner, None)

    def round(self) -> None:
        """Renew what is due, and say what is lost; then do what was left for later."""
        now = self._clock.monotonic()
        with self._lock:
            held = list(self._holdings.values())
        for holding in held:
            if holding.lost:
                self._lose(holding, holding.why_lost)
        kept = [holding for holding in held if not holding.known_lost and holding.renew_at < holding.renew_until]
        if any(holding.renew_at <= now for holding in kept):
            self._renew([holding for holding in kept if holding.renew_at <= now + holding.lease.ttl * _BATCH_WITHIN])
        self._do_what_is_due()

    def _do_what_is_due(self) -> None:
        """As much of it as there is time for until a renewal is due; one answer that does not come ends it for now."""
        while True:
            now = self._clock.monotonic()
            with self._lock:
                renewal = min((holding.next_look for holding in self._holdings.values()), default=_NEVER)
                if now >= renewal or self._next_later() > now:
                    return
                later = self._later.popleft()
            if later.until <= now or self._did(later):
                self._is_done(later)
                continue
            with self._lock:
                later.at = now + _ASK_AGAIN_AFTER
                self._later.append(later)

    def _did(self, later: _Later) -> bool:
        try:
            return later.act()
        except StoreError:
            self._later_not_before = self._clock.monotonic() + _ASK_AGAIN_AFTER
        except Exception as error:  # noqa: BLE001  the others are not to wait for what cannot be done
            self._notify(StoreFailed("doing what was left for later", f"{type(error).__name__}: {error}"))
        return False

    def _is_done(self, later: _Later) -> None:
        with self._lock:
            self._awaited.discard(later)
            if not self._awaited:
                _awaited.discard(self)
                self._all_done.notify_all()

    def _next_later(self) -> float:
        """When there is something left to do; under the lock."""
        return max(self._later[0].at, self._later_not_before) if self._later else _NEVER

    def _renew(self, due: list[Holding]) -> None:
        asked_at = self._clock.monotonic()
        unanswered: list[StoreError] = []
        for holding, answer in zip(due, self._store.renew([holding.lease for holding in due]), strict=True):
            if isinstance(answer, StoreError):
                # Not at the same instant as the other processes that met the same trouble.
                soon = holding.lease.ttl * RETRY_AFTER * random.uniform(0.5, 1.0)  # noqa: S311  not a secret
                holding.renew_at = self._clock.monotonic() + soon
                unanswered.append(answer)
            elif answer:
                holding.renewed(asked_at)
            else:
                self._lose(holding, "gone")
        if unanswered:
            self._notify(StoreFailed(f"renewing {len(unanswered)} of {len(due)} leases", str(unanswered[0])))

    def _lose(self, holding: Holding, why: str) -> None:
        with self._lock:
            if self._holdings.pop(holding.lease.owner, None) is None:
                return  # it was settled meanwhile: nobody lost anything
            holding.known_lost = True
        on_lost = holding.on_lost
        if on_lost:
            on_lost()
        self._notify(LeaseLostEvent(holding.lease.key, holding.lease.owner, why))

    def _keep(self) -> None:
        with self._lock:
            if self._keeps:
                return
            self._keeps = True
        while True:
            try:
                self.round()
            except Exception as error:  # noqa: BLE001  without a keeper every lease of the process would run out
                self._notify(StoreFailed("renewing leases", f"{type(error).__name__}: {error}"))
                time.sleep(_PAUSE_AFTER_SURPRISE)
            with self._lock:
                # Under the lock from here to the wait: what is watched meanwhile is seen, or wakes us.
                # What was watched since the last look counts once, even if it is forgotten by now: so short bodies
                # wake this thread once in a while, not each time.
                looks = [holding.next_look for holding in self._holdings.values()]
                self._next_at = min(self._due_since_look, self._next_later(), *looks, _NEVER)
                self._due_since_look = _NEVER
                pause = self._next_at - self._clock.monotonic()
                self._changed.wait(None if pause == _NEVER else max(0.0, pause))
