"""The rights that the page prints are enough, and none of them can be spared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot
from redis.exceptions import NoPermissionError, ResponseError

from celery_coord.clock import SystemClock
from celery_coord.errors import StoreError
from celery_coord.stores.opening import open_store
from celery_coord.stores.redis import RedisStore
from celery_coord.stores.redis.names import Names
from celery_coord.testing import LocalServer
from tests.servers import rights
from tests.servers.acts import failing, leased
from tests.servers.cells import Cell, needed
from tests.servers.kinds import SetUp, admin_of_cluster
from tests.servers.local_cluster import LocalCluster
from tests.servers.local_sentinel import LocalSentinel

pytestmark = pytest.mark.server

#: Where commands are the oldest, and where they are the newest.
SERVERS = ("redis-6.2", "valkey-8.1")


@pytest.fixture(scope="module", params=SERVERS)
def alone(request: pytest.FixtureRequest) -> Iterator[SetUp]:
    with Cell("user", request.param).started() as started:
        yield started


@pytest.fixture(scope="module")
def nodes() -> Iterator[LocalCluster]:
    with LocalCluster(needed("valkey-8.1").path, replicas=0) as started:
        yield started


@pytest.fixture(autouse=True)
def _the_rights_of_the_page(request: pytest.FixtureRequest) -> None:
    """Each test begins with those, in an empty store."""
    if "alone" in request.fixturenames:
        alone = request.getfixturevalue("alone")
        alone.flush()
        rights.grant(alone.admin, rights.rules())


def opened(url: str, **more: object) -> closing[RedisStore]:
    store = open_store(url, namespace="coord", timeout=5, clock=SystemClock(), **more)
    assert isinstance(store, RedisStore)
    return closing(store)


def removable(rules: list[str]) -> list[str]:
    return [rule for rule in rules if rule[0] in "~+"]


def without(rules: list[str], one: str) -> list[str]:
    return [rule for rule in rules if rule != one]


def test_they_are_enough(alone: SetUp) -> None:
    with opened(alone.url) as store:
        assert list(failing(store, alone.admin)) == []


def test_none_of_them_can_be_spared(alone: SetUp) -> None:
    spared = []
    for rule in removable(rights.rules()):
        rights.grant(alone.admin, without(rights.rules(), rule))
        alone.admin.script_flush()
        with opened(alone.url) as store:
            if not any(failing(store, alone.admin)):
                spared.append(rule)

    assert spared == []


def test_two_of_them_are_for_operators(alone: SetUp) -> None:
    rules = without(without(rights.rules(), "+scan"), "+info")
    rights.grant(alone.admin, rules)

    with opened(alone.url) as store:
        failed = [act.partition(":")[0] for act in failing(store, alone.admin)]
        assert store.check() == []

    assert failed == ["lists_what_is_held", "finds_out_that_a_server_evicts"]


def test_the_line_of_the_file_gives_the_same_rights(alone: SetUp, tmp_path: Path) -> None:
    users = tmp_path / "users.acl"
    users.write_text(rights.rules_in_a_file() + "\n")

    with LocalServer(["--aclfile", str(users)]) as server, redis.Redis.from_url(server.url) as admin:
        by_file = described(admin)
        rights.grant(admin, rights.rules())

        assert described(admin) == by_file


def described(admin: redis.Redis) -> dict[str, Any]:
    """What the server says that the user may."""
    told = admin.acl_getuser(rights.USER)
    assert told is not None
    return {name: told[name] for name in ("keys", "channels", "commands", "categories", "passwords")}


def test_the_user_touches_no_other_key_and_nothing_that_is_everybodys(alone: SetUp) -> None:
    for name in ("other", "celery", "lock:other", "lock:{shop:k}", "coord1-lease:{shop:k}"):
        alone.admin.set(name, "theirs")

    with redis.Redis.from_url(alone.url) as user:
        for command in (
            *(("GET", "other"), ("SET", "other", "ours"), ("DEL", "celery"), ("GET", "lock:other")),
            *(("DEL", "lock:{shop:k}"), ("GET", "coord1-lease:{shop:k}")),
            *(("FLUSHALL",), ("FLUSHDB",), ("KEYS", "*"), ("CONFIG", "GET", "*"), ("CONFIG", "SET", "maxmemory", "1")),
            *(("ACL", "WHOAMI"), ("SHUTDOWN",), ("SCRIPT", "FLUSH"), ("CLIENT", "LIST"), ("PUBLISH", "celery", "1")),
            *(("MONITOR",), ("RENAME", "lock:{coord:k}", "lock:{coord:l}")),
        ):
            with pytest.raises(NoPermissionError):
                user.execute_command(*command)
        for script in ("redis.call('SET', 'other', 'ours')", "redis.call('FLUSHALL')"):
            with pytest.raises((NoPermissionError, ResponseError)):
                user.eval(script, 0)

    assert alone.admin.get("other") == "theirs"


def test_a_namespace_of_its_own_is_a_user_of_its_own(alone: SetUp) -> None:
    """The word in the braces is the setting `coord_namespace`."""
    rights.grant(alone.admin, [rule.replace("{coord:", "{shop:") for rule in rights.rules()])
    store = open_store(alone.url, namespace="shop", timeout=5, clock=SystemClock())

    assert leased(store)  # type: ignore[arg-type]
    with opened(alone.url) as other, pytest.raises(Exception, match="(?i)permission"):
        leased(other)
    store.close()


def test_another_database_takes_a_right_more(alone: SetUp) -> None:
    url = alone.url.removesuffix("/0") + "/2"

    with opened(url) as store, pytest.raises(Exception, match="select"):
        store.check()
    rights.grant(alone.admin, [*rights.rules(), "+select"])
    with opened(url) as store:
        assert leased(store)


def test_a_cluster_takes_those_that_the_page_adds_and_no_more(nodes: LocalCluster) -> None:
    more, failed = rights.rules_in_a_cluster(), {}
    for left_out in ("", *more):
        for node in nodes.nodes:
            rights.grant(node.client, [*rights.rules(), *without(more, left_out)])
        with opened(rights.url_of_user(nodes.url)) as store, admin_of_cluster(nodes.nodes[0]) as admin:
            failed[left_out] = [*failing(store, admin), *failing_on_the_way(store, nodes)]

    assert failed.pop("") == []
    assert [right for right, acts in failed.items() if not acts] == []


def failing_on_the_way(store: RedisStore, nodes: LocalCluster) -> Iterator[str]:
    """What does not do what it is for while the slot of its key is being moved to another node."""
    slot = key_slot(Names("coord", "k").tag[1:-1].encode())
    source = nodes.primary_of(slot)
    target = next(node for node in nodes.primaries if node is not source)
    nodes.begin_migration(slot, target)
    try:
        store.ask("k", "on its way", 60)
        assert store.request("k") == "on its way"
    except StoreError as error:
        yield str(error)
    finally:
        nodes.finish_migration(slot, target)


def test_sentinels_take_those_that_the_page_has_for_them_and_no_more() -> None:
    needed_rights = rights.rules_of_sentinels()
    with LocalSentinel(needed("redis-7.0").path, replicas=1) as watched:
        url = f"{watched.url}&sentinel_username={rights.USER}&sentinel_password={rights.PASSWORD}"
        failed = {}
        for left_out in ("", *removable(needed_rights)):
            for sentinel in watched.sentinels:
                rights.grant(sentinel.client, without(needed_rights, left_out))
            with opened(url) as store:
                failed[left_out] = list(failing(store, watched.primary.client))

    assert failed.pop("") == []
    assert [right for right, acts in failed.items() if not acts] == []


def test_sentinels_that_are_asked_how_many_others_they_know_take_a_right_more() -> None:
    with LocalSentinel(needed("redis-7.0").path, replicas=1) as watched:
        url = f"{watched.url}&sentinel_username={rights.USER}&sentinel_password={rights.PASSWORD}&min_other_sentinels=1"
        for more in ([], rights.rules_of_sentinels_that_know_others()):
            for sentinel in watched.sentinels:
                rights.grant(sentinel.client, [*rights.rules_of_sentinels(), *more])
            with opened(url) as store:
                assert any(failing(store, watched.primary.client)) is not bool(more)


def test_replicas_that_confirm_take_a_right_more() -> None:
    with LocalSentinel(needed("redis-7.0").path, replicas=1) as watched:
        url = rights.url_of_user(watched.url)
        for more in ([], rights.rules_with_replicas()):
            for node in watched.nodes:
                rights.grant(node.client, [*rights.rules(), *more])
            with opened(url, min_replicas=1) as store:
                assert any(failing(store, watched.primary.client)) is not bool(more)
