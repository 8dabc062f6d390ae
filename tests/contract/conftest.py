"""The store in memory, and that of each kind of set-up; see `tests.servers.cells` for which."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from under import UnderTest, in_memory, in_redis

from celery_coord.stores import Store
from tests.servers.cells import Cell, chosen
from tests.servers.kinds import SetUp

#: Where histories are long, they are had where most may differ.
LONG_HISTORIES = ("user@redis-6.2", "cluster-user@valkey-8.1")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each set-up is started once, for all that is tested there."""
    if "set_up" in metafunc.fixturenames:
        whole_suite = "under_test" in metafunc.fixturenames
        places = [_place(cell) for cell in (chosen() if whole_suite else chosen(LONG_HISTORIES))]
        metafunc.parametrize("set_up", [*([MEMORY] if whole_suite else []), *places], indirect=True, scope="session")


#: No server at all.
MEMORY = pytest.param(None, id="memory")


def _place(cell: Cell) -> Any:
    return pytest.param(cell, id=str(cell), marks=pytest.mark.server)


@pytest.fixture(scope="session")
def set_up(request: pytest.FixtureRequest) -> Iterator[SetUp | None]:
    """Where the store is; None: in memory."""
    if request.param is None:
        yield None
        return
    with request.param.started() as started:
        yield started


@pytest.fixture
def under_test(set_up: SetUp | None) -> Iterator[UnderTest]:
    if set_up:
        set_up.flush()
    made = in_redis(set_up) if set_up else in_memory()
    yield made
    made.store.close()


@pytest.fixture
def store(under_test: UnderTest) -> Store:
    return under_test.store
