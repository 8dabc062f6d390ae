"""Where nobody answers: a host that says nothing at all, and a port where nobody listens."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.faults.proxy import reserved


@contextmanager
def black_hole() -> Iterator[int]:
    """The port of a host that says nothing at all: even the attempt to connect hangs."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):  # what the kernel would still accept in its name
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port where nobody listens, and that nobody else finds free: a server that is told of it may come and go."""
    with reserved() as taken:
        yield taken.getsockname()[1]
