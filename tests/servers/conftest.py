"""What a test finds: a set-up of its module's that is well again, and stores that are closed after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from celery_coord.stores.redis import RedisStore
from tests.servers.keeping import Kept
from tests.servers.local_cluster import LocalCluster
from tests.servers.local_sentinel import QUICK, LocalSentinel


@pytest.fixture
def cluster(set_up: LocalCluster) -> LocalCluster:
    """All is well, and nothing is known."""
    set_up.mend()
    set_up.flush()
    return set_up


@pytest.fixture
def sentinel(set_up: LocalSentinel) -> LocalSentinel:
    """All is well, and nothing is known."""
    set_up.hurry(**QUICK)
    set_up.mend()
    set_up.flush()
    return set_up


@pytest.fixture
def kept() -> Iterator[Kept]:
    stores: list[RedisStore] = []

    def keep(store: RedisStore) -> RedisStore:
        stores.append(store)
        return store

    yield keep
    for store in stores:
        store.close()
