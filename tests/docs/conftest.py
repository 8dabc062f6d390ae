"""A PostgreSQL server for the page that needs one; libpq's own variables say where it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ROOT

_NEEDS_POSTGRES = ROOT / "docs" / "fencing.md"


@pytest.fixture(autouse=True)
def _postgres_for_its_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not (_runs_code(request.node) and _page_of(request.node) == _NEEDS_POSTGRES):
        yield
        return
    from local_postgres import LocalPostgres, PostgresMissing

    try:
        server = LocalPostgres()
    except PostgresMissing as missing:
        # Skipping for want of a server is a local privilege.
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever asks for a server is marked so."""
    for item in items:
        if _runs_code(item) and _page_of(item) == _NEEDS_POSTGRES:
            item.add_marker(pytest.mark.server)


def _runs_code(item: pytest.Item) -> bool:
    return item.path.name == "test_pages_run.py"


def _page_of(item: pytest.Item) -> Path | None:
    call = getattr(item, "callspec", None)
    return call.params.get("page") if call else None
