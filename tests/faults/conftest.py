"""Scenes on servers of their own; asked for where there is a server to start."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from scene import MakeScene, Scene

from celery_coord.testing import LocalServer


@pytest.fixture
def make_scene(server: LocalServer) -> Iterator[MakeScene]:
    """Makes scenes that end with the test."""
    with ExitStack() as stack:
        yield lambda options: stack.enter_context(Scene(options))


@pytest.fixture
def scene(make_scene: MakeScene) -> Scene:
    return make_scene(())
