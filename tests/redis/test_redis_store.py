"""What is true of the store on Redis alone: the wire, python-redis-lock on the other side, and faults of a server."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from importlib.resources import files

import pytest
import redis
import redis_lock
from local_processes import wait_until

from celery_coord import ConfigurationError, StoreError
from celery_coord.clock import SystemClock
from celery_coord.lease import Held, Lease, Owner
from celery_coord.stores import Store
from celery_coord.stores.opening import open_store
from celery_coord.stores.redis.store import RedisStore
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server
TTL = 60.0


def open_at(url: str) -> RedisStore:
    store = open_store(url, namespace="coord", timeout=5, clock=SystemClock())
    assert isinstance(store, RedisStore)
    return store


@pytest.fixture
def store(store_url: str) -> Iterator[RedisStore]:
    opened = open_at(store_url)
    yield opened
    opened.close()


def acquire(store: Store, run: str = "run") -> Lease:
    lease = store.acquire("k", Owner.new(run), TTL, heed_cooldown=True, label="here")
    assert isinstance(lease, Lease)
    return lease


def test_the_lock_on_the_wire_is_a_python_redis_lock_lock(store: RedisStore, client: redis.Redis) -> None:
    lease = acquire(store)
    theirs = redis_lock.Lock(client, "{coord:k}", expire=60)

    assert theirs.locked()
    assert theirs.get_owner_id() == lease.owner
    assert theirs.acquire(blocking=False) is False
    store.settle(lease)
    assert theirs.acquire(blocking=False) is True


def test_a_python_redis_lock_lock_excludes_us_and_is_ours_to_wait_for(store: RedisStore, client: redis.Redis) -> None:
    theirs = redis_lock.Lock(client, "{coord:k}", expire=60)
    theirs.acquire()

    refusal = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True)

    assert isinstance(refusal, Held)
    assert (refusal.holder, refusal.token, refusal.label) == (theirs.id, None, "")
    theirs.release()
    assert acquire(store)


def test_a_lock_without_an_end_is_held_without_an_end(store: RedisStore, client: redis.Redis) -> None:
    redis_lock.Lock(client, "{coord:k}").acquire()

    refusal = store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True)

    assert isinstance(refusal, Held)
    assert refusal.left is None


def test_whoever_waits_with_python_redis_lock_is_woken_when_a_lease_is_settled(
    store: RedisStore, client: redis.Redis
) -> None:
    lease = acquire(store)
    theirs = redis_lock.Lock(client, "{coord:k}", expire=60)
    got: list[bool] = []
    waiter = threading.Thread(target=lambda: got.append(theirs.acquire(timeout=50)))
    waiter.start()
    while not client.client_list(_type="normal") or not any(c["cmd"] == "blpop" for c in client.client_list()):
        pass

    store.settle(lease)
    waiter.join(30)

    assert got == [True]


def test_whoever_waits_with_us_is_woken_when_python_redis_lock_releases(store: RedisStore, client: redis.Redis) -> None:
    theirs = store.lock("k", TTL, "a shell")
    assert isinstance(theirs, redis_lock.Lock)
    theirs.acquire()
    waiter = threading.Thread(target=store.wait, args=("k", 30))
    waiter.start()
    theirs.release()
    waiter.join(30)

    assert not waiter.is_alive()


def test_the_lock_for_code_outside_names_its_holder_and_renews_itself(store: RedisStore, client: redis.Redis) -> None:
    lock = store.lock("k", 59.5, "lock@web:1")
    lock._lock_renewal_interval /= 1000
    with lock:
        held = store.look("k").held
        client.pexpire("lock:{coord:k}", 20_000)
        wait_until(lambda: client.pttl("lock:{coord:k}") > 30_000, "a lock that is renewed")

    assert held is not None
    assert held.holder == lock.id
    assert held.holder.startswith("lock@web:1/")
    assert held.left is not None
    assert 30 < held.left <= lock._expire == 60  # whole seconds, and no fewer than were asked for
    assert not store.look("k")


def test_to_be_admitted_is_one_round_trip_and_to_settle_is_one(store: RedisStore, client: redis.Redis) -> None:
    store.settle(acquire(store))  # the server knows the scripts from here on
    client.config_resetstat()

    store.settle(acquire(store), cooldown=60)

    calls = {name: stat["calls"] for name, stat in client.info("commandstats").items()}
    assert calls.pop("cmdstat_evalsha") == 2
    assert not {"cmdstat_eval", "cmdstat_script|load"} & set(calls)


def test_many_leases_are_renewed_in_one_round_trip(store: RedisStore, client: redis.Redis) -> None:
    leases = [store.acquire(f"k{n}", Owner.new("run"), TTL, heed_cooldown=True) for n in range(100)]
    assert all(store.renew(leases))  # type: ignore[arg-type]
    before = client.info("stats")["total_reads_processed"]

    assert all(store.renew(leases))  # type: ignore[arg-type]

    assert client.info("stats")["total_reads_processed"] - before < 10  # a few reads of one large request


def test_a_server_that_forgot_the_scripts_learns_them_again(store: RedisStore, client: redis.Redis) -> None:
    lease = acquire(store)
    client.script_flush()
    assert store.renew([lease]) == [True]
    client.script_flush()
    assert store.settle(lease)
    client.script_flush()
    assert acquire(store)


def test_a_token_is_larger_than_every_earlier_one_also_after_a_flushall(store: RedisStore, client: redis.Redis) -> None:
    tokens = []
    for _ in range(50):
        tokens.append(acquire(store).token)
        client.flushall()

    assert tokens == sorted(set(tokens))


def test_a_token_is_larger_than_every_earlier_one_also_after_the_servers_clock_was_set_back(
    store: RedisStore, client: redis.Redis
) -> None:
    ahead = 2**52  # what a clock in the year 2112 would have given
    store.settle(acquire(store))
    client.set("coord1-lease:{coord:k}", f"{ahead}\nan-owner\n")

    assert acquire(store).token == ahead + 1


def test_a_token_is_exact_though_lua_counts_in_floating_point(store: RedisStore, client: redis.Redis) -> None:
    client.set("coord1-lease:{coord:k}", f"{2**53 - 3}\nan-owner\n")

    assert acquire(store).token == 2**53 - 2


def test_what_a_lease_leaves_behind_ends_by_itself(store: RedisStore, client: redis.Redis) -> None:
    store.settle(acquire(store), cooldown=60)

    keys = client.keys("*")

    assert sorted(keys) == ["coord1-cooldown:{coord:k}", "coord1-lease:{coord:k}", "lock-signal:{coord:k}"]
    assert all(client.pttl(key) > 0 for key in keys)


def test_a_lease_that_is_renewed_keeps_what_is_known_of_it(store: RedisStore, client: redis.Redis) -> None:
    lease = acquire(store)
    client.pexpire("coord1-lease:{coord:k}", 60_000)

    store.renew([lease])
    assert client.pttl("coord1-lease:{coord:k}") > 86_000_000


def test_a_key_of_the_wrong_kind_does_not_spoil_the_renewal_of_the_others(
    store: RedisStore, client: redis.Redis
) -> None:
    leases = [store.acquire(key, Owner.new("run"), TTL, heed_cooldown=True) for key in ("one", "two")]
    client.delete("lock:{coord:one}")
    client.rpush("lock:{coord:one}", "what?")

    assert store.renew(leases) == [False, True]  # type: ignore[arg-type]


def test_a_server_that_will_not_write_for_a_while_takes_no_lease_away(redis_url: str) -> None:
    """As after a fail-over that made a replica of it: nothing is known of the lease, so it is not lost."""
    store = open_at(redis_url)
    lease = acquire(store)
    with redis.Redis.from_url(redis_url) as admin:
        admin.config_set("replica-serve-stale-data", "yes")
        admin.execute_command("REPLICAOF", "127.0.0.1", "1")
        try:
            [answer] = store.renew([lease])
            assert isinstance(answer, StoreError)
            assert re.search("(?i)read.?only", str(answer))
            with pytest.raises(StoreError, match="(?i)read.?only"):
                store.settle(lease)
        finally:
            admin.execute_command("REPLICAOF", "NO", "ONE")

    assert store.renew([lease]) == [True]
    store.close()


def test_a_hundred_callers_at_once_leave_a_connection_to_the_keeper(redis_url: str) -> None:
    store = open_at(redis_url)
    barrier = threading.Barrier(150)
    failed: list[Exception] = []

    def look() -> None:
        barrier.wait()
        try:
            store.look("k")
        except StoreError as error:
            failed.append(error)

    with redis.Redis.from_url(redis_url) as admin:
        admin.execute_command("CLIENT", "PAUSE", 500, "ALL")
    threads = [threading.Thread(target=look) for _ in range(150)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert store.renew([acquire(store)]) == [True]
    store.close()


def test_namespaces_keep_applications_apart(redis_url: str) -> None:
    stores = [open_store(redis_url, namespace=name, timeout=5, clock=SystemClock()) for name in ("shop", "blog")]

    assert all(isinstance(store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True), Lease) for store in stores)
    for store in stores:
        store.close()


def test_a_cooldown_without_an_end_still_cools(store: RedisStore, client: redis.Redis) -> None:
    client.set("coord1-cooldown:{coord:k}", "an operator")

    cooling = store.look("k").cooling

    assert cooling is not None
    assert cooling.left is None
    assert store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True) == cooling


def test_a_key_of_the_wrong_kind_is_an_error_of_the_store_and_no_refusal(
    store: RedisStore, client: redis.Redis
) -> None:
    client.rpush("lock:{coord:k}", "what?")

    with pytest.raises(StoreError, match="WRONGTYPE"):
        store.acquire("k", Owner.new("run"), TTL, heed_cooldown=True)


def test_a_server_that_is_away_is_an_error_of_the_store() -> None:
    with LocalServer() as server:
        store = open_at(server.url)
        lease = acquire(store)
    [answer] = store.renew([lease])
    assert isinstance(answer, StoreError)
    for ask in (lambda: store.look("k"), lambda: store.settle(lease), store.check):
        with pytest.raises(StoreError):
            ask()


def test_a_request_to_a_server_that_hangs_is_bounded_in_time() -> None:
    with LocalServer() as server:
        store = open_store(server.url, namespace="coord", timeout=0.2, clock=SystemClock())
        with redis.Redis.from_url(server.url) as admin:
            admin.execute_command("CLIENT", "PAUSE", 20_000, "ALL")
            with pytest.raises(StoreError, match="Timeout"):
                store.look("k")


def test_a_server_that_refuses_the_password_is_told_without_repeating_it() -> None:
    with LocalServer(["--requirepass", "right-one"]) as server:
        for secret in ("", ":wrong-one@"):
            store = open_at(server.url.replace("redis://", f"redis://{secret}"))
            with pytest.raises(ConfigurationError, match="refuses us .* check its user and password") as refused:
                store.check()
            assert "one" not in str(refused.value).replace("server", "")
        right = open_at(server.url.replace("redis://", "redis://:right-one@"))
        right.check()
        right.close()


def test_a_server_that_is_too_old_is_told_with_what_is_needed(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    [client] = store.primaries()
    monkeypatch.setattr(client, "info", lambda: {"redis_version": "5.0.14"})

    with pytest.raises(ConfigurationError, match=r"too old: it is a Redis 5\.0, and Redis 6\.2 or Valkey is needed"):
        store.check()


@pytest.mark.parametrize("url", ["redis+socket://{path}?virtual_host=2", "unix://{path}?db=2"])
def test_a_unix_socket_is_reached_in_both_spellings(url: str, tmp_path: object) -> None:
    path = f"{tmp_path}/s.sock"
    with LocalServer(["--unixsocket", path]) as server:
        store = open_at(url.format(path=path))
        acquire(store)
        with redis.Redis.from_url(server.url.removesuffix("/0") + "/2") as client:
            assert client.exists("lock:{coord:k}")
        store.close()


@pytest.mark.parametrize("name", ["acquire", "renew", "settle", "hold", "refuses", "cool", "look", "record", "erase"])
def test_a_scripts_header_is_what_its_body_uses(name: str) -> None:
    source = files("celery_coord.stores.redis").joinpath(f"{name}.lua").read_text()
    header, body = "", ""
    for line in source.splitlines():
        if line.startswith("--") and not body:
            header += line + "\n"
        else:
            body += line + "\n"

    keys = re.search(r"KEYS: (.*)", header)[1].split()  # type: ignore[index]
    args = re.search(r"ARGV:(.*)", header)[1].split()  # type: ignore[index]
    assert re.search(r"local ([\w, ]+) = KEYS", body)[1].split(", ") == keys  # type: ignore[index]
    assert [int(n) for n in re.findall(r"KEYS\[(\d)\]", body)] == list(range(1, len(keys) + 1))
    unpacked = re.search(r"local ([\w, ]+) = unpack\(ARGV\)", body)
    assert (unpacked[1].split(", ") if unpacked else []) == args
    assert header.startswith(f"-- {name}: ")
    for word in re.findall(r'return \{?"(\w+)"', body):
        assert f'"{word}"' in header
    assert set(re.findall(r"redis\.call\(\"\w+\", (\w+)", body)) <= set(keys)


def test_a_run_is_remembered_for_as_long_as_its_quiet_period_also_when_it_was_told_later(
    store: RedisStore, client: redis.Redis
) -> None:
    store.settle(acquire(store), cooldown=900, remember=600, told=False)

    store.cool("k", Owner.new("run"), 0.0, remember=600, told=True)

    assert 600 < client.ttl("coord1-done:{coord:k}:run") <= 900


def test_a_fact_that_reaches_the_server_too_late_is_not_written() -> None:
    """15. Late, not never: a claim whose beat has given up waiting must not be carried out after that."""
    with LocalServer() as server:
        patient, store = open_at(server.url), RedisStore.from_url(server.url, namespace="coord", timeout=0.3)
        lease = acquire(patient)
        # It knows the server's time from here on, as soon as the server is quick enough.
        wait_until(lambda: recorded(store, lease, "one"), "a fact that reaches the server in time")

        os.kill(server.pid, signal.SIGSTOP)  # type: ignore[arg-type]
        with pytest.raises(StoreError):
            store.record(lease, "fact", "two", was="one", within=0.3)
        os.kill(server.pid, signal.SIGCONT)  # type: ignore[arg-type]

        assert patient.records("k") == {"fact": "one"}
        store.close()
        patient.close()


def recorded(store: RedisStore, lease: Lease, value: str) -> bool:
    """Whether a fact was written down; False: it did not reach the server in time."""
    try:
        return store.record(lease, "fact", value, was="", within=0.3).by_us
    except StoreError:
        return False


def test_a_server_whose_clock_was_set_forward_is_not_too_late(store: RedisStore) -> None:
    lease = acquire(store)
    assert store.record(lease, "fact", "one", was="", within=60).by_us
    [name] = store._server_ahead

    store._server_ahead[name] -= 3600

    assert store.record(lease, "fact", "two", was="one", within=60).by_us
