"""The recipes, each on its database: one file and one server for the whole session, and keys that are fresh."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from local_postgres import LocalPostgres, PostgresMissing
from recipes import RECIPES, SQLITE_FILE, Recipe, make_database_file


@pytest.fixture(scope="session")
def postgres() -> Iterator[LocalPostgres]:
    try:
        started = LocalPostgres()
    except PostgresMissing as missing:
        # Skipping for want of a server is a local privilege.
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with started:
        yield started


@pytest.fixture(scope="session")
def databases(postgres: LocalPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Both databases, for this process and those that it starts, with the tables of all recipes."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in postgres.environment.items():
            environment.setenv(name, value)
        environment.setenv(SQLITE_FILE, str(make_database_file(tmp_path_factory.mktemp("databases"))))
        for recipe in RECIPES.values():
            recipe(tables=True)
        yield


@pytest.fixture(scope="session", params=RECIPES)
def recipe(request: pytest.FixtureRequest, databases: None) -> Recipe:
    return RECIPES[request.param](tables=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for a database is marked as what asks for a server."""
    for item in items:
        if {"postgres", "databases"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
