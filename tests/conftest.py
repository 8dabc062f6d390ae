"""Servers of our own, and clients on them. Nothing relies on what may be running on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from xdist.scheduler import LoadFileScheduling

from celery_coord.testing import LocalServer, ServerMissing
from tests.servers import rights

#: What runs in one process though it is in many files. Django is set up once there: first by a page that knows of
#: nobody else, then for the others. And one RabbitMQ is enough for a small machine.
_TOGETHER = {
    "tests/fencing": "django",
    "tests/schedulers": "django",
    "tests/endings": "rabbit",
    "tests/brokers": "rabbit",
}


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    try:
        started = LocalServer(rights.server_options())
    except ServerMissing as missing:
        # Skipping for want of a server is a local privilege.
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with started:
        yield started


@pytest.fixture
def redis_url(server: LocalServer) -> str:
    """The address of an empty database."""
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture
def store_url(redis_url: str) -> str:
    """The same, for the user who coordinates: with the rights that docs/servers.md prints, and no others."""
    return rights.url_of_user(redis_url)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        yield connected


class _FilesTogether(LoadFileScheduling):
    """Side by side run files, whose tests share servers and workers, or folders, where that is said above."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _TOGETHER.get(file.rpartition("/")[0], file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _FilesTogether:
    """What runs beside what, by the names of tests alone: marks that group them get lost with pytest 9.2."""
    return _FilesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for a server is marked so."""
    for item in items:
        if {"server", "redis_url", "store_url", "client"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
