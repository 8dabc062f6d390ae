"""A RabbitMQ of one's own, beside whatever else runs on this machine."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import amqp
from black_holes import reserved_port

#: Debian's scripts in here run as any user; those in /usr/sbin change to the user of the machine's own server first.
_DEBIAN = "/usr/lib/rabbitmq/bin"
_ERLANG = "/usr/lib/erlang/bin"


class RabbitMissing(RuntimeError):
    """No RabbitMQ server is installed."""


class LocalRabbit:
    """A RabbitMQ node on a free port of 127.0.0.1, without plugins; its data goes with it.

    Node, ports, port mapper, cookie and folders are its own, so that any number of them run side by side. Who connects
    is ``guest``. It ends with this process.

    Raises:
        RabbitMissing: there is no server to start.
    """

    _PATIENCE = 120.0

    def __init__(self) -> None:
        self._server = _program("rabbitmq-server")
        self._mapper_program = _program("epmd")
        self._mapper: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._environment: dict[str, str] = {}
        self._reserved = ExitStack()  # also before it listens, which takes seconds, nobody else finds its ports free
        self.port, self._port_of_mapper, self._port_of_node = (
            self._reserved.enter_context(reserved_port()) for _ in range(3)
        )

    @property
    def url(self) -> str:
        """Its address, the default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def pid(self) -> int | None:
        """What it was started as, and the group of its processes; None while it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> Self:
        """Start it, and wait until a connection can be opened.

        Raises:
            RuntimeError: it ended, or did not answer in time.
        """
        self._folder = tempfile.TemporaryDirectory(prefix="celery-coord-", ignore_cleanup_errors=True)
        folder = Path(self._folder.name)
        self._environment = self._environment_in(folder)
        atexit.register(self.stop)
        mapped = self._environment["ERL_EPMD_PORT"]
        self._mapper = subprocess.Popen(
            [self._mapper_program, "-port", mapped, "-address", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        with (folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [self._server],
                cwd=folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + self._PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (folder / "output.txt").read_text(errors="replace")
                self.stop()
                raise RuntimeError(f"{self._server} did not start on port {self.port}; it said:\n{said}")
            time.sleep(0.1)
        return self

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` on it.

        Returns:
            What it printed.
        """
        ran = subprocess.run(
            [_program("rabbitmqctl"), "--quiet", *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=self._PATIENCE,
        )
        return ran.stdout

    def close_connections(self, ports: Collection[int]) -> None:
        """End the connections that come from these ports, from its side; those who were connected may come again.

        In one call: each starts an Erlang of its own, which takes its time where the machine is busy. Connections that
        end meanwhile, be they whose they may, are passed over.
        """
        known = "(catch rabbit_networking:connection_info(Pid, [pid, peer_port]))"
        listed = f"[{known} || Pid <- rabbit_networking:connections()]"
        ours = f"lists:member(Port, [{','.join(map(str, sorted(ports)))}])"
        close = '(catch rabbit_networking:close_connection(Pid, "a test wants it so"))'
        closed = self.control("eval", f"[{close} || [{{pid, Pid}}, {{peer_port, Port}}] <- {listed}, {ours}].")
        assert "ok" in closed, closed

    def stop(self) -> None:
        """End it; may be called twice."""
        atexit.unregister(self.stop)
        for process in (self._process, self._mapper):
            if process is not None:
                _kill_group(process)
        self._process = self._mapper = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _environment_in(self, folder: Path) -> dict[str, str]:
        """What makes a node of its own of it: all of its variables, and none of the machine's."""
        (folder / "env.conf").touch()
        (folder / "enabled_plugins").write_text("[].\n")
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.own = 127.0.0.1:{self.port}\nlog.console = false\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return {
            **kept,
            "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), _ERLANG]),
            "HOME": str(folder),  # the cookie is kept there
            "ERL_EPMD_PORT": str(self._port_of_mapper),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"celery-coord-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._port_of_node),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _answers(self) -> bool:
        try:
            with amqp.Connection(f"127.0.0.1:{self.port}", "guest", "guest", connect_timeout=1, read_timeout=5):
                return True
        except (OSError, amqp.AMQPError):
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def _program(name: str) -> str:
    """Where a program of the server is.

    Raises:
        RabbitMissing: it is not installed; the message says what to install.
    """
    found = shutil.which(name, path=_DEBIAN) or shutil.which(name) or shutil.which(name, path=_ERLANG)
    if found:
        return found
    raise RabbitMissing(f"no {name} on PATH nor in {_DEBIAN}: install RabbitMQ (Debian: apt install rabbitmq-server)")


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # it may have ended by itself
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
