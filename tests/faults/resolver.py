"""Host names for the stores of these tests, and a resolver that can fall silent, as where no name server answers.

It stands before the system's, in this process only: that of the machine is everybody's.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_DOMAIN = ".store.test"

_of_the_system = socket.getaddrinfo


class Name:
    """A name for this machine.

    Args:
        label: what no other has.
        addresses: what it stands for; empty: the resolver gives up.

    Attributes:
        asked: how often it was asked for.
    """

    def __init__(self, label: object, addresses: Sequence[str] = ("127.0.0.1",)) -> None:
        self.host = f"{label}{_DOMAIN}"
        self.asked = 0
        self._addresses = addresses
        self._speaks = threading.Event()
        self._speaks.set()

    @contextmanager
    def known(self) -> Iterator[str]:
        """The resolver knows it as long as the block lasts."""
        _names[self.host] = self
        try:
            yield self.host
        finally:
            self._speaks.set()
            del _names[self.host]

    @contextmanager
    def unanswered(self) -> Iterator[None]:
        """Who asks for it waits as long as the block lasts."""
        self._speaks.clear()
        try:
            yield
        finally:
            self._speaks.set()

    def look_up(self, *args: Any, **kwargs: Any) -> list[Any]:
        self.asked += 1
        self._speaks.wait()
        if not self._addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [found for address in self._addresses for found in _of_the_system(address, *args, **kwargs)]


_names: dict[str, Name] = {}


def _look_up(host: Any, *args: Any, **kwargs: Any) -> list[Any]:
    name = _names.get(host)
    return name.look_up(*args, **kwargs) if name else _of_the_system(host, *args, **kwargs)


socket.getaddrinfo = _look_up
