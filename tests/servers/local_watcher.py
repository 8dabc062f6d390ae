"""One sentinel."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import redis

from celery_coord.testing import free_port
from tests.integration.local_processes import wait_until

#: What the sentinels call what they watch.
MASTER = "mymaster"
#: For how long a primary must be silent before it is taken for dead, in milliseconds: where its death is waited for,
#: and at all other times, when a server that the machine lets stand still for a while is not to be replaced. Ten times
#: the first is how long a replica may have been cut off that is promoted.
DOWN_AFTER, PATIENT = 1_000, 60_000
#: How often sentinels look around, in milliseconds; four times the second is how long a primary that was replaced is
#: left in the belief that it is one. A sentinel that stood still itself promotes nobody while its tilt lasts.
QUICK = {"info_period": 500, "publish_period": 300, "ping_period": 200, "ask_period": 200, "tilt_period": 1_000}
SLOW = {"info_period": 10_000, "publish_period": 2_000, "ping_period": 1_000, "ask_period": 1_000}


class Watcher:
    """One sentinel. It writes to its file of settings, so that it cannot do without one."""

    def __init__(self, binary: str, *, quorum: int) -> None:
        self._binary, self._quorum = binary, quorum
        self._folder = tempfile.TemporaryDirectory(prefix="celery-coord-sentinel-")
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.client = redis.Redis("127.0.0.1", self.port, socket_timeout=10.0, decode_responses=True)

    def start(self, primary: int) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it ended.
        """
        settings = Path(self._folder.name) / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self._folder.name}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {primary} {self._quorum}\n"
            f"sentinel down-after-milliseconds {MASTER} {PATIENT}\n"
            f"sentinel failover-timeout {MASTER} 3000\nsentinel parallel-syncs {MASTER} 2\n"
        )
        self._process = subprocess.Popen(
            [self._binary, str(settings), "--sentinel"], stdout=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self._answers, f"a sentinel on port {self.port}")
        self.hurry(**QUICK)

    def hurry(self, **periods: int) -> None:
        """Look around, and act, so often; where the server can be told to (not before Redis 7).

        Args:
            periods: in milliseconds, by the name that the server has for them.
        """
        told = [word for name, period in periods.items() for word in (name.replace("_", "-"), period)]
        try:
            self.client.execute_command("SENTINEL", "DEBUG", *told)
        except redis.ResponseError:
            return

    def take_for_dead_after(self, silence: int) -> None:
        """From now on: `DOWN_AFTER` or `PATIENT`."""
        self.client.execute_command("SENTINEL", "SET", MASTER, "down-after-milliseconds", silence)

    def primary_port(self) -> int:
        """Whom it takes for the primary, where clients look: it may name another to those who ask for the address."""
        return int(_fields(self.client.execute_command("SENTINEL", "MASTER", MASTER))["port"])

    def is_content(self, replicas: int, others: int) -> bool:
        """Whether it knows so many replicas and other sentinels, and finds nothing wrong with them."""
        known = _fields(self.client.execute_command("SENTINEL", "MASTER", MASTER))
        found = known["num-slaves"], known["num-other-sentinels"], known["flags"]
        if found != (str(replicas), str(others), "master"):
            return False
        return all(replica["flags"] == "slave" for replica in self.replicas())

    def replicas(self) -> list[dict[str, str]]:
        """What it knows of each replica: it asks them once in a while."""
        return [_fields(replica) for replica in self.client.execute_command("SENTINEL", "REPLICAS", MASTER)]

    def clean(self) -> None:
        self.client.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._folder.cleanup()

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self._binary} --sentinel ended, as where port {self.port} is another's")
        try:
            return self.client.info("server")["process_id"] == self._process.pid
        except redis.RedisError:
            return False


def _fields(reply: dict[str, str] | list[str]) -> dict[str, str]:
    """A map in RESP3, a list of names and values in RESP2."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
