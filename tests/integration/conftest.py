"""Sites with two ready workers each, for the whole session: keys are fresh, so that tests do not meet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from coord_site import Site

from celery_coord.testing import LocalServer


@pytest.fixture
def folder(server: LocalServer, tmp_path: Path) -> Path:
    """Where the processes of one test run; asked for where there is a server to start."""
    return tmp_path


@pytest.fixture(scope="session")
def prefork(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from _with_two_workers(tmp_path_factory.mktemp("prefork"), "prefork")


@pytest.fixture(scope="session")
def threads(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from _with_two_workers(tmp_path_factory.mktemp("threads"), "threads")


@pytest.fixture(scope="session")
def solo(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    yield from _with_two_workers(tmp_path_factory.mktemp("solo"), "solo")


@pytest.fixture
def site(request: pytest.FixtureRequest) -> Site:
    """The site that the parameter names."""
    found: Site = request.getfixturevalue(request.param)
    return found


def _with_two_workers(folder: Path, pool: str) -> Iterator[Site]:
    with Site(folder) as site:
        site.ready_workers(pool, count=2)
        yield site
