"""A site with a prefork worker for the whole session, and places for sites of a test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from peers_project import PeersSite

from celery_coord.testing import LocalServer


@pytest.fixture
def folder(server: LocalServer, tmp_path: Path) -> Path:
    """Where the processes of one test run; asked for where there is a server to start."""
    return tmp_path


@pytest.fixture(scope="session")
def peers(server: LocalServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeersSite]:
    """A site with a prefork worker; keys are fresh, so that tests do not meet."""
    with PeersSite(tmp_path_factory.mktemp("peers"), coord_store_timeout=10) as site:  # on a busy machine
        site.ready_workers("prefork")
        yield site
