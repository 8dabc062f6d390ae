"""Sites of beats, around each scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from beat_database import Database, make_template
from beat_site import DATABASE_SCHEDULERS, BeatSite, MakeSite

from celery_coord.testing import LocalServer

#: Short, since tests wait for its end; and longer than a beat is kept waiting by a busy machine, or another would lead.
TTL = 5


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without entries."""
    return make_template(tmp_path_factory.mktemp("template") / "db.sqlite3")


@pytest.fixture(scope="module")
def make_module_site(
    server: LocalServer, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeSite]:
    """Makes sites that end with the module."""
    yield from _site_maker(template, lambda: tmp_path_factory.mktemp("beats"))


@pytest.fixture
def make_site(server: LocalServer, template: Path, tmp_path: Path) -> Iterator[MakeSite]:
    """Makes a site that ends with the test."""
    yield from _site_maker(template, lambda: tmp_path)


def _site_maker(template: Path, make_folder: Callable[[], Path]) -> Iterator[MakeSite]:
    with ExitStack() as stack:

        def make(scheduler: str, **conf: Any) -> BeatSite:
            folder = make_folder()
            needs_database = scheduler in DATABASE_SCHEDULERS.values()
            database = Database(folder / "db.sqlite3", template) if needs_database else None
            return stack.enter_context(BeatSite(folder, scheduler, database, **{"coord_leader_ttl": TTL, **conf}))

        yield make
