from __future__ import annotations

from collections.abc import Iterator

import pytest
from under import UnderTest, in_memory, in_redis

from celery_coord.stores import Store


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.server)])
def under_test(request: pytest.FixtureRequest) -> Iterator[UnderTest]:
    made = in_memory() if request.param == "memory" else in_redis(request.getfixturevalue("redis_url"))
    yield made
    made.store.close()


@pytest.fixture
def store(under_test: UnderTest) -> Store:
    return under_test.store
