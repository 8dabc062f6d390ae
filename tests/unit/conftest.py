from __future__ import annotations

import pytest
from celery import _state
from doubles import FlakyStore, Seen

from celery_coord.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> FlakyStore:
    return FlakyStore(clock)


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture(autouse=True)
def apps_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery shares a task with every other app of the process; here each test has its own."""
    monkeypatch.setattr(_state, "_on_app_finalizers", set(_state._on_app_finalizers))


@pytest.fixture(autouse=True)
def followers_look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that ends while it observes is waited for until it looks again; here that need not be a second."""
    monkeypatch.setattr("celery_coord.election._LONGEST_OBSERVATION", 0.1)
