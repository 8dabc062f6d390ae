"""A site with workers for every ending, for the whole session; and which endings a run of these tests has."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
from endings_site import EndingsSite
from endings_table import Cell, is_in_sample
from local_rabbit import LocalRabbit, RabbitMissing

from celery_coord.testing import LocalServer

_ALL = "--all-endings"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(_ALL, action="store_true", help="every ending in every pool and on every broker, not a sample")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption(_ALL, default=False):
        return
    left_out = [item for item in items if (cell := cell_of(item)) and not is_in_sample(cell)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many cells of which place held."""
    held = Counter(
        dict(report.user_properties)["place"]
        for report in terminalreporter.getreports("passed")
        if report.when == "call" and "place" in dict(report.user_properties)
    )
    if held:
        terminalreporter.section("endings")
    for place, number in held.items():
        terminalreporter.write_line(f"{place:<22}{number:>4} endings hold")


@pytest.fixture
def cell(request: pytest.FixtureRequest, record_property: Any) -> Cell:
    found: Cell = request.param
    record_property("place", found.place)
    return found


@pytest.fixture(scope="session")
def endings(
    server: LocalServer, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[EndingsSite]:
    with ExitStack() as stack:

        @cache
        def rabbit() -> LocalRabbit:
            try:
                return stack.enter_context(LocalRabbit())
            except RabbitMissing as missing:
                # Skipping for want of a server is a local privilege.
                if os.environ.get("CI"):
                    pytest.fail(str(missing))
                pytest.skip(str(missing))

        site = stack.enter_context(EndingsSite(tmp_path_factory.mktemp("endings"), rabbit))
        site.plan += [kind for item in request.session.items if (cell := cell_of(item)) for kind in cell.workers]
        yield site


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell of the table that a test is for."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return parameters.get("cell")
