"""What no test noticed when it was broken on purpose, where it takes a server: see ``python -m tests.sabotage``."""

from __future__ import annotations

import pytest
import redis

from celery_coord.lease import Lease, Owner
from celery_coord.stores.redis import RedisStore

pytestmark = pytest.mark.server


def test_a_connection_that_the_server_closed_is_no_outage(store_url: str, client: redis.Redis) -> None:
    """9. Only a store that cannot be reached puts a run off: here it is asked once more."""
    store = RedisStore.from_url(store_url, namespace="coord", timeout=5)
    lease = store.acquire("k", Owner.new("run"), 30, heed_cooldown=True)
    assert isinstance(lease, Lease)

    client.client_kill_filter(_type="normal", skipme=True)

    assert store.settle(lease)
    store.close()


def test_a_run_is_remembered_for_as_long_as_its_own_quiet_period_lasts(store_url: str, client: redis.Redis) -> None:
    """7. If the earlier delivery succeeded it ends as a duplicate: its own quiet period would not refuse it."""
    store = RedisStore.from_url(store_url, namespace="coord", timeout=5)
    lease = store.acquire("k", Owner.new("run"), 30, heed_cooldown=True)
    assert isinstance(lease, Lease)

    store.settle(lease, cooldown=3600, remember=600)
    store.cool("other", Owner.new("run"), 3600, remember=600)

    for key in ("k", "other"):
        assert client.pttl(f"coord1-done:{{coord:{key}}}:run") > 3_000_000
    store.close()
