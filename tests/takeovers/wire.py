"""What the server was asked to do, in its own order: read from MONITOR, so that a claim and a send can be compared."""

from __future__ import annotations

import ast
import json
import re
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Self

from tests.takeovers.history import Claim, Message, Payment

_RECORDS = "coord1-records:{coord:leader:beat}"
_RUN = "run:"
_OWED = "owed:"
_QUEUE = "celery"

_LINE = re.compile(r"\+(?P<at>\d+\.\d+) \[[^]]*\] (?P<words>.*)")
_WORD = re.compile(r'"(?:[^"\\]|\\.)*"')


class Wire:
    """Listens to a server from `__enter__` on.

    Args:
        port: where the server listens on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._log: list[Claim | Payment | Message] = []
        self._more = threading.Condition()
        self._failed: Exception | None = None

    @property
    def log(self) -> list[Claim | Payment | Message]:
        """Claims and messages so far, in the order of the server."""
        with self._more:
            return list(self._log)

    def wait_for(self, is_meant: Callable[[Claim | Message], bool], *, after: int, timeout: float) -> bool:
        """Until there is such an event behind so many of the log; False: there was none in time.

        Args:
            is_meant: whether this is the one.
            after: how many events are passed over.
            timeout: for how long, in seconds.

        Raises:
            Exception: something that the server told could not be read.
        """
        with self._more:
            found = self._more.wait_for(lambda: self._failed or any(map(is_meant, self._log[after:])), timeout)
        self._raise_failure()
        return bool(found)

    def __len__(self) -> int:
        return len(self._log)

    def __enter__(self) -> Self:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self._socket.sendall(b"MONITOR\r\n")
        self._lines = self._socket.makefile("rb")
        if (answer := self._lines.readline()) != b"+OK\r\n":
            raise RuntimeError(f"MONITOR was answered with {answer!r}")
        self._socket.settimeout(None)  # a server that has stopped says nothing for a while
        self._thread = threading.Thread(target=self._listen, name="wire", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._lines.close()
        self._socket.close()
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failed:
            raise self._failed

    def _listen(self) -> None:
        try:
            for line in self._lines:
                if events := read(line.decode()):
                    with self._more:
                        self._log += events
                        self._more.notify_all()
        except Exception as error:
            with self._more:
                self._failed = error
                self._more.notify_all()


def read(line: str) -> list[Claim | Payment | Message]:
    """The claims and the message in one line of MONITOR; most have none."""
    if not (found := _LINE.match(line)):
        return []
    at = float(found["at"])
    verb, *words = (_unquoted(word) for word in _WORD.findall(found["words"]))
    if verb.upper() in {"HSET", "HMSET"} and words[0] == _RECORDS:
        return [*_claims(at, words[1:]), *_payments(at, words[1:])]
    if verb.upper() in {"LPUSH", "RPUSH"} and words[0] == _QUEUE:
        return [_message(at, word) for word in words[1:]]
    return []


def _unquoted(word: str) -> str:
    """MONITOR quotes as C does, byte by byte; Python reads that."""
    text: bytes = ast.literal_eval("b" + word)
    return text.decode()


def _claims(at: float, words: Sequence[str]) -> list[Claim]:
    pairs = zip(words[::2], words[1::2], strict=True)
    return [Claim(at, name.removeprefix(_RUN), *_run_and_term(value)) for name, value in pairs if name.startswith(_RUN)]


def _payments(at: float, words: Sequence[str]) -> list[Payment]:
    """What is owed has its instant for a value; what is being paid has the term behind that."""
    paid = [
        (name.removeprefix(_OWED).partition(":"), value.split())
        for name, value in zip(words[::2], words[1::2], strict=True)
        if name.startswith(_OWED) and " " in value
    ]
    return [Payment(at, entry, float(due), int(term)) for (_, _, entry), (due, term) in paid]


def _run_and_term(value: str) -> tuple[float, int]:
    run, term = value.split()
    return float(run), int(term)


def _message(at: float, text: str) -> Message:
    headers = json.loads(text)["headers"]
    beat = headers["coord_beat"]
    sender = int(headers["origin"].partition("@")[0].removeprefix("gen"))
    if headers["coord_lease"] != ["leader:beat", beat["term"]]:
        raise ValueError(f"{headers['coord_lease']} is not the lease of term {beat['term']}")
    return Message(at, beat["entry"], beat["due"], beat["term"], sender)
