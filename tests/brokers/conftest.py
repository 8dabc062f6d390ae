"""All brokers, for the whole session: each with its workers, which start side by side where they can."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from brokers_site import FilesPlace, MemoryPlace, Place
from brokers_table import BROKERS
from local_rabbit import LocalRabbit, RabbitMissing
from local_sqs import LocalSQS, SQSMissing

from celery_coord.testing import LocalServer

Opened = tuple[str, dict[str, Any]]


class Places:
    """The places that these tests ask for; one whose broker is missing here is the reason for that.

    Args:
        folder: where the processes run.
        names: of the brokers.
    """

    def __init__(self, folder: Path, names: set[str]) -> None:
        self._stack = ExitStack()
        self._folder = folder
        self._rabbit: LocalRabbit | None = None
        self._found: dict[str, Place | RabbitMissing | SQSMissing] = {}
        for name in BROKERS:
            if name in names:
                self._found[name] = self._start(name)

    def __getitem__(self, name: str) -> Place:
        found = self._found[name]
        if isinstance(found, Place):
            found.ready()
            return found
        # Skipping for want of a server is a local privilege.
        if os.environ.get("CI"):
            pytest.fail(str(found))
        pytest.skip(str(found))

    def _start(self, name: str) -> Place | RabbitMissing | SQSMissing:
        opens: dict[str, Callable[[], Opened]] = {
            "redis": lambda: (self._stack.enter_context(LocalServer()).url, {}),
            "rabbitmq": lambda: (self._one_rabbit().url, {}),
            "quorum": lambda: (self._one_rabbit().url, {}),
            "sqs": lambda: (self._stack.enter_context(LocalSQS()).url, {}),
            "filesystem": lambda: ("filesystem://", {"broker_transport_options": self._folders()}),
            "memory": lambda: ("memory://", {}),
        }
        try:
            url, conf = opens[name]()
        except (RabbitMissing, SQSMissing) as missing:
            return missing
        kind = {"memory": MemoryPlace, "filesystem": FilesPlace}.get(name, Place)
        place = self._stack.enter_context(kind(self._folder / name, BROKERS[name], url, **conf))
        place.start()
        return place

    def _one_rabbit(self) -> LocalRabbit:
        if self._rabbit is None:
            self._rabbit = self._stack.enter_context(LocalRabbit())
        return self._rabbit

    def _folders(self) -> dict[str, Any]:
        messages, control = self._folder / "messages", self._folder / "control"
        messages.mkdir()
        control.mkdir()
        both = {"data_folder_in": str(messages), "data_folder_out": str(messages)}
        return {**both, "control_folder": str(control), "polling_interval": 0.1}

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="session")
def places(
    server: LocalServer, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Places]:
    asked = [item.callspec.params.get("broker") for item in request.session.items if hasattr(item, "callspec")]
    found = Places(tmp_path_factory.mktemp("brokers"), {name for name in asked if name in BROKERS})
    yield found
    found.close()


@pytest.fixture
def place(places: Places, broker: str) -> Place:
    """The place of the broker that the parameter names."""
    return places[broker]
