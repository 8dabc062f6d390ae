"""What lies between a client and its server: a line that a test can cut, clog, and fill with silence.

A network that fails shows itself in few ways, and each is a `Line` here:

    PASSES      as it should be
    STALLS      nothing gets through; what was said meanwhile arrives when the line passes again
    MUTE        the server hears all, and nobody hears its answers
    VANISHED    the peer is gone without a word (no FIN, no RST): whoever was connected then is never answered again

Beside that, connections can be cut, new ones refused, and every answer delayed.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum, auto
from typing import Self

_CHUNK = 65536
#: Closes with RST: whoever is connected learns it at once, as when a server's process dies.
_RESET = struct.pack("ii", 1, 0)


class Line(Enum):
    """What becomes of what is said."""

    PASSES = auto()
    STALLS = auto()
    MUTE = auto()
    VANISHED = auto()


class _Connection:
    """One client, and the server that it speaks to; `is_dead` where the peer has vanished."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.is_dead = False

    def close(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def reset(self) -> None:
        with contextlib.suppress(OSError):
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.close()


class Proxy:
    """Stands before a server on 127.0.0.1, from `__enter__` on.

    Args:
        port: where the server listens.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._changed = threading.Condition()
        self._line = Line.PASSES
        self._delay = 0.0
        self._to_lose = 0
        self._is_closed = False
        self._connections: set[_Connection] = set()
        self._cuts = 0
        self._listener: socket.socket | None = None
        self._reserved = reserved()
        self.port: int = self._reserved.getsockname()[1]
        #: How many connections were accepted so far.
        self.accepted = 0
        #: How many there were at once, at most; set it to 0 to count anew.
        self.most = 0

    @property
    def url(self) -> str:
        """The server's address, by way of this line."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    def set(self, line: Line) -> None:
        """From now on the line is so."""
        with self._changed:
            self._line = line
            if line is Line.VANISHED:
                for connection in list(self._connections):
                    connection.is_dead = True
            self._changed.notify_all()

    @contextmanager
    def being(self, line: Line) -> Iterator[None]:
        """The line is so for as long as the block lasts."""
        self.set(line)
        try:
            yield
        finally:
            self.set(Line.PASSES)

    def lose_answers(self, count: int) -> None:
        """So many answers are thrown away, from now on, and their connections are cut: the server has acted."""
        with self._changed:
            self._to_lose = count

    @property
    def lost_all(self) -> bool:
        """Whether all answers that were to be lost have been."""
        return self._to_lose == 0

    def delay(self, seconds: float) -> None:
        """Every answer takes so much longer."""
        self._delay = seconds

    def cut(self) -> None:
        """End all connections now, as a server that dies does; who was connected may come again."""
        with self._changed:
            self._cuts += 1  # for those who are about to be joined
            connections = list(self._connections)
        for connection in connections:
            connection.reset()

    def refuse(self) -> None:
        """Nobody listens any more: new connections are refused."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # else the accept that waits for it goes on
            listener.close()

    def accept(self) -> None:
        """Listen, on the same port as ever; again, if connections were refused."""
        if self._listener is not None:
            return
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(512)
        threading.Thread(target=self._serve, args=(self._listener,), name="proxy", daemon=True).start()

    def die(self) -> None:
        """The server's process is gone: all connections are cut, and new ones refused."""
        self.refuse()
        self.cut()

    def heal(self) -> None:
        """As it should be again; whoever lost his connection has lost it."""
        self._delay, self._to_lose = 0.0, 0
        self.set(Line.PASSES)
        self.accept()

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self.die()
        self._reserved.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            cuts = self._cuts
            try:
                server = socket.create_connection(("127.0.0.1", self._server_port), timeout=5)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
                continue
            server.settimeout(None)
            self._join(_Connection(client, server), listener, cuts)

    def _join(self, connection: _Connection, listener: socket.socket, cuts: int) -> None:
        with self._changed:
            is_cut = self._cuts != cuts or self._listener is not listener
            if not is_cut:
                connection.is_dead = self._line is Line.VANISHED
                self._connections.add(connection)
                self.most = max(self.most, self.open)
        if is_cut:
            connection.reset()
            return
        for end in (connection.client, connection.server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for is_answer in (False, True):
            threading.Thread(target=self._pump, args=(connection, is_answer), name="proxy", daemon=True).start()

    def _pump(self, connection: _Connection, is_answer: bool) -> None:
        source, target = connection.client, connection.server
        if is_answer:
            source, target = target, source
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if is_answer and self._is_to_be_lost():
                    break
                if self._gets_through(connection, is_answer):
                    target.sendall(data)
        if is_answer and connection.is_dead and not self._is_closed:
            return  # the server has hung up, and nobody tells the client
        self._connections.discard(connection)
        connection.close()

    def _is_to_be_lost(self) -> bool:
        with self._changed:
            is_lost = self._to_lose > 0
            self._to_lose -= is_lost
            return is_lost

    def _gets_through(self, connection: _Connection, is_answer: bool) -> bool:
        if is_answer and self._delay:
            time.sleep(self._delay)
        with self._changed:
            self._changed.wait_for(lambda: self._line is not Line.STALLS or connection.is_dead or self._is_closed)
            is_unheard = is_answer and self._line is Line.MUTE
        return not (connection.is_dead or is_unheard)


def reserved(port: int = 0) -> socket.socket:
    """A port of 127.0.0.1 that refuses connections, and that nobody who asks for a free one is given, while it is open.

    Who wants this very port, and says that it may be in use, can listen there meanwhile.

    Args:
        port: which; 0: any that is free.

    Raises:
        OSError: it is not free.
    """
    found = socket.socket()
    try:
        found.bind(("127.0.0.1", port))
    except OSError:
        found.close()
        raise
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # not before: two would reserve the same one
    return found


__all__ = ["Line", "Proxy", "reserved"]
