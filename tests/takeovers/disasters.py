"""The driver: makes leaders end, one disaster after the other, and writes down when."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import redis

from celery_coord.app import coordination
from celery_coord.errors import CoordError
from celery_coord.leader import leader_of
from celery_coord.operating import step_down
from celery_coord.testing import LocalServer
from tests.integration.local_processes import PATIENCE, wait_until
from tests.takeovers.beats import Beats
from tests.takeovers.history import (
    CRASH,
    LONG_STALL,
    PAUSE,
    RESIGN,
    SHORT_STALL,
    STEP_DOWN,
    Claim,
    Elected,
    History,
    Message,
    Struck,
)
from tests.takeovers.project import GRIDS, INTERVALS, TTL, make_app
from tests.takeovers.wire import Wire

BEATS = 3
#: Dealt again and again, each time in another order; the first hand has one of each.
_DECK = (CRASH,) * 6 + (RESIGN,) * 5 + (PAUSE,) * 4 + (STEP_DOWN,) * 3 + (LONG_STALL, SHORT_STALL) * 2
#: How many leaders are struck as soon as they are elected, and how many of the others just as they have claimed.
_AT_ONCE, _AT_A_CLAIM = 0.15, 0.5
#: For how long a leader is left alone at most, and for how long all is quiet at the end, in seconds.
_LONGEST_PEACE, _QUIET = 0.8, 4 * TTL


def take_over(count: int, dice: random.Random, folder: Path) -> History:
    """Let leaders be taken over from so many times.

    Args:
        count: how often a leader ends. Stalls of the store that are shorter than the ttl come on top.
        dice: decides what happens, and when.
        folder: where the beats run, and where their output is kept.

    Returns:
        What happened.

    Raises:
        AssertionError: nobody took over, or a beat did not end as it was asked to.
    """
    with LocalServer() as server, Wire(server.port) as wire, Beats(folder, server.url) as beats:
        for seat in range(BEATS):
            beats.start(seat)
        driver = _Driver(server, wire, beats, dice)
        for kind in _kinds(count, dice):
            driver.strike(kind)
        beats.leader(after=driver.struck[-1].term if driver.struck[-1].kind != SHORT_STALL else 0)
        time.sleep(_QUIET)
        ended = time.time()
        _wait_for_what_is_due(wire, ended)
        beats.end()
        _hear_all(wire, server)
        return History(GRIDS, INTERVALS, wire.log, beats.elected(), driver.struck, ended)


def _kinds(count: int, dice: random.Random) -> Iterator[str]:
    """What happens, until so many leaders have ended."""
    hand = sorted(set(_DECK))
    while True:
        dice.shuffle(hand)
        for kind in hand:
            if count <= 0:
                return
            yield kind
            count -= kind != SHORT_STALL
        hand = list(_DECK)


def _wait_for_what_is_due(wire: Wire, until: float) -> None:
    """Until the leader has come to an instant of each entry that is later than this: it may have been kept waiting."""
    for entry in (*GRIDS, *INTERVALS):
        heard = wire.wait_for(
            lambda event, entry=entry: isinstance(event, Message) and event.entry == entry and event.due > until,
            after=0,
            timeout=PATIENCE,
        )
        assert heard, f"{entry} was not sent any more at the end"


def _hear_all(wire: Wire, server: LocalServer) -> None:
    """Until the wire has told of each message that lies in the queue."""
    with redis.Redis.from_url(server.url) as client:
        sent = client.llen("celery")
    wait_until(
        lambda: sum(isinstance(event, Message) for event in wire.log) >= sent, f"all {sent} messages were heard of"
    )
    heard = sum(isinstance(event, Message) for event in wire.log)
    assert heard == sent, f"heard of {heard} messages, and {sent} were sent"


class _Driver:
    """Strikes the leader, or the store, and waits until another leads."""

    def __init__(self, server: LocalServer, wire: Wire, beats: Beats, dice: random.Random) -> None:
        self._server = server
        self._wire = wire
        self._beats = beats
        self._dice = dice
        self._app = make_app(server.url)
        self._app.conf.coord_store_timeout = PATIENCE  # that of the beats is so short that a busy machine exceeds it
        self._term = 0
        self.struck: list[Struck] = []

    def strike(self, kind: str) -> None:
        """One disaster."""
        acts = {
            CRASH: self._crash,
            RESIGN: self._resign,
            PAUSE: self._pause,
            STEP_DOWN: self._step_down,
            LONG_STALL: self._stall_long,
            SHORT_STALL: self._stall_short,
        }
        acts[kind](self._aim())

    def _aim(self) -> Elected:
        """Whom to strike, when the moment has come."""
        leader = self._beats.leader(after=self._term)
        if self._dice.random() < _AT_ONCE:
            return leader
        self._wait_for_act(leader.term)
        time.sleep(self._dice.uniform(0, _LONGEST_PEACE))
        if self._dice.random() < _AT_A_CLAIM:
            self._wire.wait_for(lambda event: isinstance(event, Claim), after=len(self._wire), timeout=PATIENCE)
        return leader

    def _wait_for_act(self, term: int, *, after: int = 0) -> None:
        heard = self._wire.wait_for(
            lambda event: isinstance(event, Message) and event.term >= term, after=after, timeout=PATIENCE
        )
        assert heard, f"nobody sends in term {term} or later"

    def _end(self, kind: str, leader: Elected, number: signal.Signals) -> None:
        self._note(kind, leader)
        os.kill(leader.pid, number)

    def _note(self, kind: str, leader: Elected) -> None:
        self.struck.append(Struck(kind, time.time(), leader.pid, leader.term))

    def _wait_for_another(self, leader: Elected) -> None:
        self._term = leader.term
        self._beats.leader(after=leader.term)

    def _crash(self, leader: Elected) -> None:
        self._end(CRASH, leader, signal.SIGKILL)
        self._replace(leader)

    def _resign(self, leader: Elected) -> None:
        self._end(RESIGN, leader, signal.SIGTERM)
        beat = self._beats.of(leader.pid)
        self._replace(leader)
        assert beat.wait() == 0, f"ended with an error:\n{beat.output}"

    def _replace(self, leader: Elected) -> None:
        """Another beat in the seat of one that ended; it comes when another leads, so as not to slow that down."""
        self._wait_for_another(leader)
        self._beats.start(self._beats.seat_of(leader.pid), afresh=self._dice.random() < 0.5)

    def _pause(self, leader: Elected) -> None:
        self._end(PAUSE, leader, signal.SIGSTOP)
        self._wait_for_another(leader)
        time.sleep(self._dice.uniform(0, TTL / 2))
        os.kill(leader.pid, signal.SIGCONT)

    def _step_down(self, leader: Elected) -> None:
        self._note(STEP_DOWN, leader)
        wait_until(self._has_stepped_down, "a leader that can be asked, should this one be late")
        self._wait_for_another(leader)

    def _has_stepped_down(self) -> bool:
        """Whether who leads now has been asked to step down, and has; not where nobody leads."""
        if not leader_of(coordination(self._app).store, "beat"):
            return False
        with suppress(CoordError):  # it has ended since
            step_down(self._app, "beat", 10.0)
            return True
        return False

    def _stall_long(self, leader: Elected) -> None:
        self._stall(self._dice.uniform(1.3, 3.0) * TTL)
        self._note(LONG_STALL, leader)
        self._wait_for_another(leader)

    def _stall_short(self, leader: Elected) -> None:
        self._stall(self._dice.uniform(0.1, 0.6) * TTL)
        self._note(SHORT_STALL, leader)
        self._wait_for_act(leader.term, after=len(self._wire))

    def _stall(self, seconds: float) -> None:
        assert self._server.pid
        os.kill(self._server.pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(self._server.pid, signal.SIGCONT)
