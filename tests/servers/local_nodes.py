"""One server of a Sentinel or Cluster set-up: it can be paused, killed, and cut from those that copy it."""

from __future__ import annotations

import os
import random
import signal
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self, TypeVar

import redis

from celery_coord.testing import LocalServer
from tests.faults.proxy import reserved
from tests.integration.local_processes import wait_until
from tests.servers.certificates import Certificates

#: Who copies a primary. A user of its own, so that copying can be forbidden while everybody else goes on.
COPIER = "copier"
#: The port of a cluster's bus is that of the server and so much more.
TO_BUS = 10_000


class Cleanable(Protocol):
    def clean(self) -> None: ...


One = TypeVar("One", bound=Cleanable)


def started(one: One, start: Callable[[One], object], another: Callable[[], One]) -> One:
    """Start a server; another one, on another port, where somebody was faster to take its own.

    Args:
        one: which.
        start: how; raises RuntimeError where it cannot.
        another: makes one more like it.
    """
    for _ in range(5):
        try:
            start(one)
        except RuntimeError:
            one.clean()
            one = another()
        else:
            return one
    raise RuntimeError("found no free port")


class Together(ABC):
    """Servers that live for as long as a block lasts; none of them is left where one does not start."""

    @abstractmethod
    def start(self) -> Self:
        """Start them, and wait until they answer."""

    @abstractmethod
    def close(self) -> None:
        """End them all, also where some did not start."""

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


class Node(LocalServer):
    """A server that may copy another one, or be copied.

    Args:
        options: more of the server's options.
        held: its ports, the first of which is where it listens; empty: one that is free. They stay its own while it is
            dead.
        binary: the server to run; None: the one that is found.
        certificates: with which it speaks TLS, and nothing else; None: it does not.
    """

    def __init__(
        self,
        options: Sequence[str] = (),
        *,
        held: Sequence[socket.socket] = (),
        binary: str | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self._held = held or [reserved(0)]
        self._data = tempfile.TemporaryDirectory(prefix="celery-coord-node-")
        copying = ["--dir", self._data.name, "--masteruser", COPIER, "--masterauth", COPIER]
        quick = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--hz", "50"]
        over_tls = certificates.on_port(0) if certificates else []
        port = int(self._held[0].getsockname()[1])
        super().__init__([*copying, *quick, *over_tls, *options], port=port, binary=binary)
        self._is_paused = False
        #: What a client is told beside host and port. Whatever the certificate names, we know whom we have started.
        self.options: dict[str, Any] = {"decode_responses": True}
        if certificates:
            self.options |= {"ssl": True, "ssl_check_hostname": False, **certificates.options}
        self.client = redis.Redis("127.0.0.1", self.port, socket_timeout=10.0, **self.options)

    def start(self) -> Node:
        """Start it, and let it be copied.

        Raises:
            RuntimeError: it did not start, or another server has its port.
        """
        super().start()
        with redis.Redis("127.0.0.1", self.port) as plain:
            if plain.info("server")["process_id"] != self.pid:
                self.stop()
                raise RuntimeError(f"port {self.port} is another's")
            if "ssl" in self.options:  # not from the start: whether it has started is found out without
                plain.execute_command("CONFIG", "SET", "port", 0, "tls-port", self.port)
        self.let_copy()
        return self

    @property
    def runs(self) -> bool:
        """Whether there is a process, be it paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def answers(self) -> bool:
        """Whether it can be talked to."""
        if not self.runs or self._is_paused:
            return False
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def start_again(self) -> None:
        """Start it on the port that it had. It has forgotten all keys, and knows its cluster."""
        self.stop()
        self.start()

    def info(self, section: str = "replication") -> dict[str, Any]:
        """What it says of itself."""
        return dict(self.client.info(section))

    def let_copy(self) -> None:
        """Let others copy it, and copy others."""
        self.client.config_set("masterauth", COPIER)
        self.client.execute_command("ACL", "SETUSER", COPIER, "on", f">{COPIER}", "+psync", "+replconf", "+ping")

    def cut_off(self) -> None:
        """Let nobody copy it any more; it goes on for everybody else, and does not know that others fall behind."""
        self.client.execute_command("ACL", "SETUSER", COPIER, "off")
        self.client.execute_command("CLIENT", "KILL", "TYPE", "replica")

    def fall_behind(self, primary: Node) -> None:
        """Learn nothing more of this primary, while others do."""
        self.client.config_set("masterauth", "wrong")
        primary.client.execute_command("CLIENT", "KILL", "TYPE", "replica")  # the others come back at once
        wait_until(lambda: self.info()["master_link_status"] == "down", f"{self.port} is cut off")

    def flush(self, replicas: int) -> None:
        """Forget everything, here and on so many replicas.

        One that has just been linked is told nothing until it has answered, up to a second later; if it is cut off
        before, it never hears of it.
        """
        with self.client.client() as one:  # WAIT asks for what was written on the same connection
            one.flushall()
            wait_until(lambda: one.wait(replicas, 100) >= replicas, f"{replicas} replicas that have forgotten it too")

    def pause(self) -> None:
        """Let it stand still: its connections stay open, and nothing is answered."""
        assert self.pid is not None
        os.kill(self.pid, signal.SIGSTOP)
        self._is_paused = True

    def wake(self) -> None:
        """Let it go on; may be called twice."""
        if self._is_paused and self.pid is not None:
            os.kill(self.pid, signal.SIGCONT)
        self._is_paused = False

    def stop(self) -> None:
        """End it; may be called twice. What it wrote for itself (who is in the cluster) stays for its next start."""
        self.wake()
        self.client.close()
        super().stop()

    def clean(self) -> None:
        """End it for good. It is killed: one that is asked to end waits for its replicas."""
        self.wake()
        self.kill()
        self.stop()
        self._data.cleanup()
        for port in self._held:
            port.close()


def held_with_bus() -> list[socket.socket]:
    """A port, and that of a cluster's bus; neither is one that the system gives to clients."""
    chance = random.SystemRandom()
    while True:
        port, held = chance.randrange(10_000, 22_000), []
        try:
            held.append(reserved(port))
            held.append(reserved(port + TO_BUS))
        except OSError:
            for one in held:
                one.close()
        else:
            return held
