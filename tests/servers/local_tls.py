"""A sentinel that speaks TLS alone to those who have a certificate."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from celery_coord.testing import LocalServer
from tests.integration.black_holes import reserved_port
from tests.integration.local_processes import wait_until
from tests.servers.certificates import Certificates
from tests.servers.local_sentinel import MASTER


@contextmanager
def sentinel_over_tls(binary: str, certificates: Certificates) -> Iterator[tuple[LocalServer, int]]:
    """A server, and the port of a sentinel that watches its port with TLS."""
    with (
        reserved_port() as port,
        reserved_port() as sentinel_port,
        LocalServer(certificates.on_port(port), binary=binary) as server,
        TemporaryDirectory() as folder,
    ):
        settings = Path(folder) / "sentinel.conf"
        words = [*certificates.on_port(sentinel_port), "--port", "0", "--bind", "127.0.0.1", "--dir", folder]
        pairs = zip(words[::2], words[1::2], strict=True)
        lines = [f"{name.removeprefix('--')} {value}" for name, value in pairs]
        settings.write_text("\n".join([*lines, f"sentinel monitor {MASTER} 127.0.0.1 {port} 1", ""]))
        process = subprocess.Popen([binary, str(settings), "--sentinel"], stdout=subprocess.DEVNULL)
        try:
            told = redis.Redis("127.0.0.1", sentinel_port, ssl=True, **certificates.options)  # type: ignore[arg-type]
            wait_until(lambda: _knows_the_server(told), "a sentinel that speaks TLS, and knows its server")
            told.close()
            yield server, sentinel_port
        finally:
            process.kill()
            process.wait()


def _knows_the_server(sentinel: redis.Redis) -> bool:
    try:
        [master] = sentinel.sentinel_masters().values()
    except (redis.RedisError, ValueError):
        return False
    return not master["is_sdown"] and not master["is_disconnected"]
