"""Servers of our own, and clients on them. Nothing relies on what may be running on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis

from celery_coord.testing import LocalServer, ServerMissing


@pytest.fixture(scope="session")
def server() -> Iterator[LocalServer]:
    try:
        started = LocalServer()
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
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as connected:
        yield connected


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for a server is marked so."""
    for item in items:
        if {"server", "redis_url", "client"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
