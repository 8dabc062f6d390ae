"""`task.lock()` on one server: each act of it ends in time, and what it holds is renewed after a stall."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
import redis_lock
from local_processes import wait_until

from celery_coord.errors import StoreError
from celery_coord.stores.redis import RedisStore
from celery_coord.testing import LocalServer

pytestmark = pytest.mark.server
TTL = 60.0
TIMEOUT = 0.3
#: Far more than any act may take, and far less than without a bound.
PATIENCE = 20.0
KEY = "lock:{coord:k}"


class Stalled:
    """A server that stands still when it is told to."""

    def __init__(self, server: LocalServer) -> None:
        assert server.pid is not None
        self.url, self._pid = server.url, server.pid
        self.client = redis.Redis.from_url(server.url, decode_responses=True)

    def pause(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def wake(self) -> None:
        os.kill(self._pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def own_server() -> Iterator[Stalled]:
    with LocalServer() as server:
        stalled = Stalled(server)
        yield stalled
        stalled.client.close()


@pytest.fixture
def stalled(own_server: Stalled) -> Iterator[Stalled]:
    own_server.client.flushall()
    yield own_server
    own_server.wake()


@pytest.fixture
def store(stalled: Stalled) -> Iterator[RedisStore]:
    """One that soon finds out that the server stands still; it may find so of a server that is only slow."""
    opened = RedisStore.from_url(stalled.url, namespace="coord", timeout=TIMEOUT)
    yield opened
    opened.close()


@pytest.fixture
def patient(stalled: Stalled) -> Iterator[RedisStore]:
    opened = RedisStore.from_url(stalled.url, namespace="coord", timeout=PATIENCE)
    yield opened
    opened.close()


class Ending:
    """How something ends, in a thread of its own."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self._result: list[Any] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result.append(self._act())
        except Exception as error:
            self._result.append(error)

    @property
    def is_over(self) -> bool:
        return bool(self._result)

    def in_time(self) -> Any:
        """What it returned or raised."""
        self._thread.join(PATIENCE)
        assert self._result, "it still waits"
        return self._result[0]


ACTS: dict[str, Callable[[redis_lock.Lock], Any]] = {
    "look": lambda lock: lock.locked(),
    "acquire at once": lambda lock: lock.acquire(blocking=False),
    "acquire later": lambda lock: lock.acquire(timeout=600),
    "extend": lambda lock: lock.extend(),
    "release": lambda lock: lock.release(),
    "reset": lambda lock: lock.reset(),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_an_act_of_a_lock_whose_server_stands_still_fails_in_time(
    store: RedisStore, stalled: Stalled, act: Callable[[redis_lock.Lock], Any]
) -> None:
    """9. Bounded in time, with the errors that who uses python-redis-lock knows."""
    wait_until(lambda: answers(store), "a store that is connected")
    stalled.pause()

    ended = Ending(lambda: act(store.lock("k", TTL, "a shell"))).in_time()

    assert isinstance(ended, redis.TimeoutError | redis.ConnectionError), ended


def answers(store: RedisStore) -> bool:
    with suppress(StoreError):
        store.look("k")
        return True
    return False


def test_who_waits_for_a_lock_learns_in_time_that_the_server_stands_still(store: RedisStore, stalled: Stalled) -> None:
    """9. Bounded in time: also while one waits for longer than an answer may take."""
    redis_lock.Lock(stalled.client, "{coord:k}", expire=600).acquire()
    waiting = wait_until(lambda: one_who_waits(store, stalled), "one who waits")

    stalled.pause()

    assert isinstance(waiting.in_time(), redis.TimeoutError | redis.ConnectionError)


def one_who_waits(store: RedisStore, stalled: Stalled) -> Ending | None:
    """For a lock; None: the server was too slow for this one."""
    waiting = Ending(lambda: store.lock("k", TTL, "a shell").acquire(timeout=600))
    wait_until(lambda: waiting.is_over or stalled.client.info("clients")["blocked_clients"], "one who waits or gave up")
    return None if waiting.is_over else waiting


@pytest.fixture
def unanswered(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Is set when a renewal was not answered."""
    happened, extend = threading.Event(), redis_lock.Lock.extend

    def noticed(lock: redis_lock.Lock, *args: Any, **kwargs: Any) -> Any:
        try:
            return extend(lock, *args, **kwargs)
        except redis.RedisError:
            happened.set()
            raise

    monkeypatch.setattr(redis_lock.Lock, "extend", noticed)
    return happened


def held(store: RedisStore, stalled: Stalled) -> redis_lock.Lock:
    """A lock that is renewed often."""
    lock = store.lock("k", TTL, "a shell")
    lock._lock_renewal_interval = 0.05

    def is_taken() -> bool:
        stalled.client.delete(KEY)  # by a try whose answer came too late
        with suppress(redis.RedisError, redis_lock.AlreadyAcquired):
            return bool(lock.acquire(blocking=False))
        return False

    wait_until(is_taken, "a lock")
    return lock


def test_a_lock_that_could_not_be_renewed_while_the_server_stood_still_is_renewed_after_it(
    store: RedisStore, stalled: Stalled, unanswered: threading.Event
) -> None:
    """5. The lease is renewed while the holder works: python-redis-lock gives up when one answer does not come."""
    lock = held(store, stalled)
    stalled.pause()
    assert unanswered.wait(PATIENCE)

    stalled.wake()
    wait_until(lambda: stalled.client.pexpire(KEY, 20_000), "a server that is awake")

    wait_until(lambda: stalled.client.pttl(KEY) > 30_000, "a lock that is renewed")
    with suppress(redis.RedisError):  # be it answered or not, the renewals end
        lock.release()


@pytest.fixture
def read_only(stalled: Stalled) -> Iterator[None]:
    """The server has become a replica, of nobody who answers."""
    stalled.client.replicaof("127.0.0.1", 1)
    yield
    stalled.client.replicaof("NO", "ONE")


def test_a_lock_whose_renewal_was_refused_for_a_while_is_renewed_after_it(
    patient: RedisStore, stalled: Stalled, unanswered: threading.Event, request: pytest.FixtureRequest
) -> None:
    """5. As with a task's lease: a refusal says nothing of who holds the key."""
    lock = held(patient, stalled)
    request.getfixturevalue("read_only")
    assert unanswered.wait(PATIENCE)

    stalled.client.replicaof("NO", "ONE")
    stalled.client.pexpire(KEY, 20_000)

    wait_until(lambda: stalled.client.pttl(KEY) > 30_000, "a lock that is renewed")
    lock.release()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # python-redis-lock ends it so
def test_a_lock_that_was_lost_can_be_taken_again(patient: RedisStore, stalled: Stalled) -> None:
    lock = held(patient, stalled)
    stalled.client.delete(KEY)
    wait_until(lambda: not lock._lock_renewal_thread.is_alive(), "the end of its renewals")
    with pytest.raises(redis_lock.NotAcquired):
        lock.release()

    assert lock.acquire(blocking=False)

    stalled.client.pexpire(KEY, 20_000)
    wait_until(lambda: stalled.client.pttl(KEY) > 30_000, "a lock that is renewed")
    lock.release()


def test_a_lock_that_was_lost_can_be_taken_again_also_before_its_renewals_notice(
    patient: RedisStore, stalled: Stalled
) -> None:
    """Taken, or not: not taken, renewed, and refused by an error."""
    lock = patient.lock("k", TTL, "a shell")
    lock._lock_renewal_interval = 3600.0
    assert lock.acquire(blocking=False)
    stalled.client.delete(KEY)
    first = lock._lock_renewal_thread

    assert lock.acquire(blocking=False)

    assert not first.is_alive()
    assert lock._lock_renewal_thread.is_alive()
    lock.release()
    assert not stalled.client.exists(KEY)


def test_a_lock_that_is_being_renewed_in_vain_is_released_in_time(
    store: RedisStore, stalled: Stalled, unanswered: threading.Event
) -> None:
    """9. Bounded in time: who releases a lock waits for its renewal no longer than for one answer."""
    lock = held(store, stalled)
    stalled.pause()
    assert unanswered.wait(PATIENCE)

    ended = Ending(lock.release).in_time()

    assert isinstance(ended, redis.TimeoutError | redis.ConnectionError), ended
    assert lock._lock_renewal_thread is None


def test_a_lock_of_ours_that_is_the_first_of_a_process_leaves_others_their_scripts(
    store: RedisStore, stalled: Stalled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """python-redis-lock registers its scripts once, with the class of the first lock that is made."""
    monkeypatch.setattr(redis_lock, "reset_all_script", None)
    for name in ("unlock_script", "extend_script", "reset_script", "reset_all_script"):
        monkeypatch.setattr(redis_lock.Lock, name, None)

    store.lock("k", TTL, "a shell")
    theirs = redis_lock.Lock(stalled.client, "{coord:k}", expire=60)

    assert theirs.acquire(blocking=False)
    theirs.extend()
    theirs.release()
    assert not theirs.locked()


def test_a_server_that_was_asked_to_forget_all_scripts_learns_those_of_a_lock(
    patient: RedisStore, stalled: Stalled
) -> None:
    with patient.lock("k", TTL, "a shell") as lock:
        stalled.client.script_flush()
        lock.extend()
        stalled.client.script_flush()

    assert not stalled.client.exists(KEY)
