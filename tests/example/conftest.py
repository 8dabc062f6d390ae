"""A small fleet: a primary with two replicas."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import redis

from celery_coord.testing import LocalServer
from example_project.inventory import Address


@dataclass(frozen=True)
class Fleet:
    primary: Address
    replica: Address
    other_replica: Address


@pytest.fixture(scope="session")
def fleet(server: LocalServer) -> Iterator[Fleet]:  # without a server there is no fleet
    with LocalServer(("--repl-diskless-sync-delay", "0")) as primary:
        follow = ("--replicaof", "127.0.0.1", str(primary.port))
        with LocalServer(follow) as replica, LocalServer(follow) as other_replica:
            for node in (replica, other_replica):
                _await_link(node)
            yield Fleet(*(Address("127.0.0.1", node.port) for node in (primary, replica, other_replica)))


def _await_link(replica: LocalServer) -> None:
    deadline = time.monotonic() + 20
    with redis.Redis(port=replica.port) as client:
        while client.info("replication")["master_link_status"] != "up":
            assert time.monotonic() < deadline, "the replica never found its primary"
            time.sleep(0.05)
