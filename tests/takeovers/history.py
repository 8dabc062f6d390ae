"""What happened, as plain values: the judge knows nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: How a leader is made to end, and what the store suffers; in the words of what is printed.
CRASH, RESIGN, PAUSE, STEP_DOWN = "crash", "resign", "pause", "step down"
SHORT_STALL, LONG_STALL = "stall, shorter than the ttl", "stall, longer than the ttl"


@dataclass(frozen=True, slots=True)
class Claim:
    """The store wrote down the last run of an entry.

    Attributes:
        at: when, by the server.
        entry: the entry's name.
        run: the last run, in seconds since the epoch. A claim is followed by a larger one, an undone claim by what
            was there before it.
        term: the term of who claimed it.
    """

    at: float
    entry: str
    run: float
    term: int


@dataclass(frozen=True, slots=True)
class Payment:
    """A leader took it on itself to send an instant that an older term had claimed, could not send, and owed.

    Attributes:
        at: when, by the server.
        entry: the entry's name.
        due: the instant.
        term: the term of who sends it.
    """

    at: float
    entry: str
    due: float
    term: int


@dataclass(frozen=True, slots=True)
class Message:
    """The broker took a message.

    Attributes:
        at: when, by the server.
        entry: the entry's name.
        due: the instant that it stands for, in seconds since the epoch.
        term: the term in which it was sent.
        sender: the process that sent it.
    """

    at: float
    entry: str
    due: float | None
    term: int
    sender: int


@dataclass(frozen=True, slots=True)
class Elected:
    """A process told that it leads."""

    at: float
    term: int
    pid: int


@dataclass(frozen=True, slots=True)
class Struck:
    """The end of a leader, or a stall of the store.

    Attributes:
        kind: `CRASH` and so on.
        at: since when nobody led: when the leader was struck, or the stalled store went on.
        pid: the leader then.
        term: its term.
    """

    kind: str
    at: float
    pid: int
    term: int


@dataclass(frozen=True, slots=True)
class History:
    """Everything that the judge is told.

    Attributes:
        grids: seconds between two instants, by the name of an entry whose instants are a grid of the wall clock.
        intervals: seconds from a run to the next, by the name of an entry that counts from its last run.
        log: claims, payments and messages, in the order of the server.
        elected: who told that it leads, in the order of time.
        struck: what the driver did, in the order of time.
        ended: until when a beat was there to send what was due.
    """

    grids: Mapping[str, float]
    intervals: Mapping[str, float]
    log: Sequence[Claim | Payment | Message]
    elected: Sequence[Elected]
    struck: Sequence[Struck]
    ended: float

    @property
    def messages(self) -> list[Message]:
        return [event for event in self.log if isinstance(event, Message)]
