"""Which kinds of set-up are tested on which servers: some of them in each run, all of them in the matrix.

The variable TEST_SERVERS says which: "every", or names as "cluster@valkey-8.1 tls@redis-7.0". Without it: a sample in
which there is each kind and each server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from celery_coord.testing import ServerMissing
from tests.servers.binaries import WANTED, Binary, binary
from tests.servers.kinds import KINDS, Kind, SetUp

VARIABLE = "TEST_SERVERS"

#: Each kind, on one server or more: what may depend on the version is where the version is the oldest or the newest.
SAMPLE = (
    "standalone@redis-6.2",
    "standalone@valkey-8.1",
    "password@redis-6.2",
    "user@redis-6.2",
    "unix@valkey-8.1",
    "tls@redis-7.0",
    "resp2@redis-7.0",
    "resp3@valkey-8.1",
    "sentinel@redis-7.0",
    "sentinel-user@redis-7.0",
    "sentinel-tls@redis-7.0",
    "cluster@redis-7.0",
    "cluster-user@valkey-8.1",
    "cluster-tls@redis-7.0",
)


@dataclass(frozen=True)
class Cell:
    """One kind of set-up on one server."""

    kind: str
    server: str

    def __str__(self) -> str:
        return f"{self.kind}@{self.server}"

    @classmethod
    def named(cls, name: str) -> Cell:
        kind, _, server = name.partition("@")
        if kind not in KINDS or server not in WANTED:
            raise ValueError(f"no {name!r}: there are {', '.join(map(str, every()))}")
        return cls(kind, server)

    def why_not(self) -> str:
        """What speaks against it on this machine, though the server is here; empty: nothing."""
        try:
            return self._kind.why_not(self._binary)
        except ServerMissing:
            return ""  # that is said by the test, which may have to fail

    @contextmanager
    def started(self) -> Iterator[SetUp]:
        """The set-up, for as long as the block lasts; the test is skipped where the server is missing."""
        with self._kind.start(needed(self.server)) as set_up:
            yield set_up

    @property
    def _kind(self) -> Kind:
        return KINDS[self.kind]

    @property
    def _binary(self) -> Binary:
        return binary(self.server)


def needed(server: str) -> Binary:
    """The server of this name; the test that asks is skipped where it is missing."""
    try:
        return binary(server)
    except ServerMissing as missing:
        # Skipping for want of a server is a local privilege.
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))


def every() -> list[Cell]:
    """All cells, in the order of the matrix."""
    return [Cell(kind, server) for kind in KINDS for server in WANTED]


def chosen(sample: Sequence[str] = SAMPLE) -> list[Cell]:
    """The cells that this run has."""
    said = os.environ.get(VARIABLE, "")
    cells = every() if said == "every" else [Cell.named(name) for name in said.split() or sample]
    return [cell for cell in cells if not cell.why_not()]
