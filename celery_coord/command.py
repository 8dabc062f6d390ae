"""A command that the leader alone runs: what ``celery coord run`` does once its options are read.

States:

    following ──elected──▶ running ──the command ends by itself──▶ resigned: we end with its exit status
        ▲                     │
        └──the command is dead┘  leadership lost, or soon not to be believed in; asked to step down; end of the term

*In time.* The command may run until the leadership can no longer be believed in (`Election.trusted_for`): SIGTERM
comes a grace before that, SIGKILL then. A guardian sees to it (`celery_coord.guardian`), so it holds while we are
paused, too. We give the guardian more time as the lease is renewed.

*In order.* A leadership that ends by our own doing (a signal, a step-down, the end of a term) is given up when the
command is dead, and not before: nothing of it runs when another leads.

*Forgotten.* A lease that the store itself has lost (the event says ``gone``) may be another's already. The command then
has the grace, and no more.

*Signals.* SIGTERM, SIGINT and SIGQUIT end the command (SIGTERM, then SIGKILL after the grace; another one, a second or
more after the first, means SIGKILL now), and then us. SIGHUP, SIGUSR1 and SIGUSR2 are passed on. Where no command runs
they do nothing, but for the SIGHUP of a terminal that is gone.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn, Self

from celery_coord.guarded import CANNOT, UNGUARDED, Ended, Guarded
from celery_coord.guardian import ASKED, ITSELF, LAPSED
from celery_coord.leading import Election

logger = logging.getLogger("celery_coord")

#: The longest grace, and what it is where nobody says: a part of the ttl. A renewal that is late does not set it off,
#: and it is over long before a term that retires ends by itself.
GRACE = 1 / 5
#: The shortest ttl, in seconds: in a part of it a process has to start, and to end.
SHORTEST_TTL = 1.0
#: What the command finds in its environment.
NAME, TERM = "COORD_NAME", "COORD_TERM"

#: How often lease and command are looked after: a part of the ttl, and seconds; the smaller one.
_LOOK_AFTER, _LONGEST_LOOK = 1 / 20, 0.1
#: A guardian that is later than this part of the ttl is stopped or stuck.
_LATE = 1 / 40

#: One request may come by two ways, from the terminal and from a supervisor; later than so many seconds it is another.
_ASKED_AGAIN = 1.0
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: What is no command's exit status, and that of one that SIGTERM ended.
_NOT_RUN, _DIED_OF_TERM = -1, 128 + signal.SIGTERM


class CommandOfLeader:
    """Campaigns, and runs a command while it leads.

    Args:
        command: the program and its arguments.
        ttl: how long the lease outlives its last renewal, in seconds.
        grace: seconds from SIGTERM to SIGKILL; a fifth of the ttl at most.
    """

    def __init__(self, command: Sequence[str], *, ttl: float, grace: float) -> None:
        self._command = command
        self._ttl = ttl
        self._grace = grace
        self._signals = Signals()
        self._asked: int | None = None
        self._asked_at = 0.0
        self._in_a_terminal = os.isatty(0)
        self._looked_at = time.monotonic()

    def is_healthy(self) -> bool:
        """For the election: whether somebody looks after the command."""
        return time.monotonic() - self._looked_at < self._ttl

    def run(self, election: Election) -> int:
        """Campaign, and run the command, until it ends by itself or a signal ends us.

        Returns:
            The exit status to end with. A signal that ended the command, or found none, ends us as well.
        """
        with self._signals:
            election.campaign(timeout=0)
            try:
                status = self._until_the_end(election)
            finally:
                election.resign()
        if self._asked is not None and status in (_NOT_RUN, _DIED_OF_TERM):
            die_of(self._asked)
        return status

    def _until_the_end(self, election: Election) -> int:
        while not self._is_to_end():
            term = election.term
            if term is None:
                self._look(None)
                continue
            ended = self._lead(election, term)
            if self._is_to_end() or ended.why in (ITSELF, CANNOT):
                return ended.status
            if election.term == term:  # nobody leads without the command
                election.step_down()
        return _NOT_RUN

    def _lead(self, election: Election, term: int) -> Ended:
        environment = {**os.environ, NAME: election.name, TERM: str(term)}
        until = _trusted_until(election, term) or 0.0
        with Guarded(self._command, grace=self._grace, until=until, environment=environment) as guarded:
            logger.info("%s: running %s", election.name, self._command[0])
            election.acted(f"began {self._command[0]}")
            ended = self._attend(guarded, election, term)
        _tell(election.name, self._command[0], ended)
        return ended

    def _attend(self, guarded: Guarded, election: Election, term: int) -> Ended:
        while guarded.ended is None:
            until = _trusted_until(election, term)
            if until is not None:
                guarded.extend(until)
            if until is None or election.retiring or self._is_to_end():
                guarded.end()
            if guarded.late > self._ttl * _LATE:
                guarded.end_both()
            self._look(guarded)
        return guarded.ended

    def _look(self, guarded: Guarded | None) -> None:
        """Wait until there is something to do, for a moment at most, and hear of it."""
        self._looked_at = time.monotonic()
        if self._signals.wait(guarded, min(self._ttl * _LOOK_AFTER, _LONGEST_LOOK)) and guarded:
            guarded.hear()
        for number in self._signals.received():
            self._obey(number, guarded)

    def _is_to_end(self) -> bool:
        return self._asked is not None

    def _obey(self, number: int, guarded: Guarded | None) -> None:
        if number in _ENDING or (number == signal.SIGHUP and guarded is None and self._in_a_terminal):
            if self._asked is None:
                self._asked, self._asked_at = number, time.monotonic()
            elif guarded is not None and time.monotonic() > self._asked_at + _ASKED_AGAIN:
                guarded.kill()
        elif guarded is not None:
            guarded.signal(number)


def _trusted_until(election: Election, term: int) -> float | None:
    """Until when this term can be believed in, on this machine's monotonic clock; None: no more."""
    now = time.monotonic()
    seconds = election.trusted_for
    return now + seconds if seconds > 0 and election.term == term else None


def _tell(name: str, program: str, ended: Ended) -> None:
    """The log line of a command's end."""
    level, line = {
        ITSELF: (logging.INFO, f"{program} has ended, exit status {ended.status}"),
        ASKED: (logging.INFO, f"{program} was ended, exit status {ended.status}"),
        LAPSED: (logging.WARNING, f"{program} was ended: the lease was not renewed, and could soon be another's"),
        UNGUARDED: (logging.WARNING, f"{program} was killed with its guardian"),
        CANNOT: (logging.ERROR, f"{program} cannot be started: {ended.words}"),
    }[ended.why]
    logger.log(level, "%s: %s", name, line)


class Signals:
    """The signals that come, in order, for one loop in the main thread."""

    def __init__(self) -> None:
        self._came, self._wake = os.pipe()
        for end in (self._came, self._wake):
            os.set_blocking(end, False)

    def wait(self, guarded: Guarded | None, timeout: float) -> bool:
        """Wait for a signal or for the guarded command, for so many seconds; whether that has something to say."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._came, selectors.EVENT_READ)
            if guarded is not None:
                selector.register(guarded, selectors.EVENT_READ)
            return any(key.fileobj is guarded for key, _ in selector.select(timeout))

    def received(self) -> list[int]:
        """The signals that have come since this was last asked."""
        try:
            return list(os.read(self._came, 4096))
        except BlockingIOError:
            return []

    def __enter__(self) -> Self:
        for number in (*_ENDING, *_PASSED_ON):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup wants it ignored, and so does a shell's background
                signal.signal(number, _nothing)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        """The handlers stay: what comes now comes too late, and must not disturb an orderly end."""


def _nothing(*_: object) -> None:
    """A handler: the signal's number is in the pipe, and that is all there is to it."""


def die_of(number: int) -> NoReturn:
    """End as a process does that handles no signal: shells and supervisors know that for an orderly end."""
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)  # the first process of a container does not die of its own signals
