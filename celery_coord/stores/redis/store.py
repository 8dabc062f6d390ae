"""`RedisStore`: the port on one server or a cluster; what is in the server is in the package's docstring."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import redis
import redis_lock
from redis.exceptions import RedisError

from celery_coord.errors import NewerLayout, StoreError
from celery_coord.lease import (
    Cooling,
    Done,
    Held,
    Lease,
    Look,
    Owner,
    Recorded,
    Refusal,
    kept_for_next,
    run_and_generation,
)
from celery_coord.stores.redis.acts import (
    ACQUIRE,
    COOL,
    ERASE,
    HOLD,
    LOOK,
    RECORD,
    REFUSES,
    RENEW,
    SETTLE,
    milliseconds,
)
from celery_coord.stores.redis.address import Address
from celery_coord.stores.redis.cluster import Cluster
from celery_coord.stores.redis.diagnosis import store_error
from celery_coord.stores.redis.locks import Lock, LockClient, on_node_of, on_server
from celery_coord.stores.redis.names import LAYOUT, Names, before_key_in_lease
from celery_coord.stores.redis.scripts import Call
from celery_coord.stores.redis.servers import Server
from celery_coord.stores.redis.trial import Trial
from celery_coord.stores.redis.trouble import OnOver

_P = ParamSpec("_P")
_T = TypeVar("_T")

_NO_END = -1
#: For how long what a leader wrote down is kept when nobody writes: longer than a year, which a schedule may span.
_KEEP_RECORDS = 400 * 86400.0


def _answers(method: Callable[Concatenate[RedisStore, _P], _T]) -> Callable[Concatenate[RedisStore, _P], _T]:
    """Any failure of the client becomes the port's one error."""

    @wraps(method)
    def answering(store: RedisStore, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(store, *args, **kwargs)
        except RedisError as error:
            raise store_error(error) from error

    return cast("Callable[Concatenate[RedisStore, _P], _T]", answering)


class RedisStore:
    """Leases in a Redis or Valkey server, or in a cluster of them.

    Args:
        address: where the servers are.
        namespace: what the keys of this application begin with.
        min_replicas: how many replicas have to confirm what is written.
        max_connections: how many connections to a server the short acts of this process share.
        on_recovered: is told, when the store answers again, for how long it did not, in seconds, and how often.
    """

    def __init__(
        self,
        address: Address,
        *,
        namespace: str = "coord",
        min_replicas: int = 0,
        max_connections: int = 10,
        on_recovered: OnOver = lambda *_: None,
    ) -> None:
        self._address = address
        bounds = {"most": max_connections, "min_replicas": min_replicas}
        self._servers: Server | Cluster
        if address.is_cluster:
            self._servers = Cluster(address, **bounds, on_recovered=on_recovered)
        else:
            self._servers = Server(address.client(), timeout=address.timeout, **bounds, on_recovered=on_recovered)
        self._namespace = namespace
        self._min_replicas = min_replicas
        self._longest_wait = min(1.0, address.timeout / 2)
        self._server_ahead: dict[str, float] = {}  # of this process's monotonic clock, for each key: servers differ

    @classmethod
    def from_url(
        cls, url: str, *, timeout: float, transport_options: Mapping[str, Any] | None = None, **more: Any
    ) -> RedisStore:
        """A store from the setting ``coord_url``; see `celery_coord.stores.open_store`."""
        return cls(Address.of(url, transport_options or {}, timeout=timeout), **more)

    def _names(self, key: str) -> Names:
        return Names(self._namespace, key)

    @_answers
    def acquire(
        self, key: str, owner: Owner, ttl: float, *, heed_cooldown: bool, label: str = "", remember: float = 0.0
    ) -> Lease | Refusal | Done:
        """See `celery_coord.stores.Store.acquire`."""
        name, owner_id = self._names(key), str(owner)
        answer = ACQUIRE.run(
            self._servers,
            (name.lock, name.cooldown, name.lease, name.done(owner.run), name.layout),
            LAYOUT,
            owner_id,
            owner.run,
            owner.generation,
            milliseconds(ttl),
            label,
            int(heed_cooldown),
            milliseconds(remember),
        )
        match answer:
            case str(token):
                return Lease(key, owner_id, int(token), ttl, remember)
            case ["held", holder, left, known, begun]:
                return replace(_held(key, holder, left, known), begun=bool(begun))
        return _kept_away(key, answer)

    @_answers
    def refuses(self, key: str, owner: Owner, *, heed_cooldown: bool) -> Cooling | Done | None:
        """See `celery_coord.stores.Store.refuses`."""
        name = self._names(key)
        keys = (name.cooldown, name.done(owner.run), name.layout)
        answer = REFUSES.run(self._servers, keys, LAYOUT, owner.run, owner.generation, int(heed_cooldown))
        return None if answer == "nothing" else _kept_away(key, answer)

    def renew(self, leases: Sequence[Lease]) -> list[bool | StoreError]:
        """See `celery_coord.stores.Store.renew`."""
        calls: list[Call] = []
        for lease in leases:
            name = self._names(lease.key)
            run, _ = run_and_generation(lease.owner)
            args = (lease.owner, milliseconds(lease.ttl), milliseconds(lease.remember))
            calls.append(((name.lock, name.lease, name.done(run)), args))
        return [_still_ours(answer) for answer in RENEW.run_many(self._servers, calls)]

    @_answers
    def settle(
        self, lease: Lease, *, cooldown: float = 0.0, remember: float = 0.0, told: bool = True, wake: int = 1
    ) -> bool:
        """See `celery_coord.stores.Store.settle`."""
        name = self._names(lease.key)
        run, generation = run_and_generation(lease.owner)
        keys = (name.lock, name.cooldown, name.signal, name.done(run))
        args = (lease.owner, generation, milliseconds(cooldown), _kept_ms(remember, cooldown), int(told), wake)
        return bool(SETTLE.run(self._servers, keys, *args) == "settled")

    @_answers
    def hold(self, lease: Lease, seconds: float, *, remember: float = 0.0) -> bool:
        """See `celery_coord.stores.Store.hold`."""
        name = self._names(lease.key)
        run, generation = run_and_generation(lease.owner)
        args = (lease.owner, generation, milliseconds(seconds), milliseconds(remember), kept_for_next(lease.owner))
        return bool(HOLD.run(self._servers, (name.lock, name.done(run)), *args) == "held")

    @_answers
    def cool(self, key: str, owner: Owner, seconds: float, *, remember: float = 0.0, told: bool = True) -> None:
        """See `celery_coord.stores.Store.cool`."""
        name = self._names(key)
        keys = (name.cooldown, name.done(owner.run))
        args = (str(owner), owner.generation, milliseconds(seconds), _kept_ms(remember, seconds), int(told))
        COOL.run(self._servers, keys, *args)

    @_answers
    def forget(self, key: str, owner: Owner) -> None:
        """See `celery_coord.stores.Store.forget`."""
        done = self._names(key).done(owner.run)
        self._servers.ask(done, ("DEL", done), confirm=True)

    @_answers
    def clear(self, key: str) -> bool:
        """See `celery_coord.stores.Store.clear`."""
        cooldown = self._names(key).cooldown
        return bool(self._servers.ask(cooldown, ("DEL", cooldown), confirm=True))

    @_answers
    def look(self, key: str) -> Look:
        """See `celery_coord.stores.Store.look`."""
        name = self._names(key)
        keys = (name.lock, name.cooldown, name.lease)
        holder, left, known, cooled_by, cooling = LOOK.run(self._servers, keys)
        return Look(
            key,
            _held(key, holder, left, known) if holder else None,
            Cooling(key, cooled_by, _left(cooling)) if cooled_by else None,
        )

    @_answers
    def record(
        self,
        lease: Lease,
        name: str,
        value: str,
        *,
        was: str | None = None,
        by_holder: bool = True,
        within: float | None = None,
    ) -> Recorded:
        """See `celery_coord.stores.Store.record`."""
        key = self._names(lease.key)
        keys = (key.lock, key.records)
        args = (lease.owner, name, value, was or "", int(was is not None), int(by_holder), milliseconds(_KEEP_RECORDS))
        for _ in range(2):
            match RECORD.run(self._servers, keys, *args, self._server_time_in(key.lock, within)):
                case ["late", str(now)]:  # or the server's clock was set: then it is in time the second time
                    self._server_ahead[key.lock] = float(now) - time.monotonic()
                case ["other", str(other)]:
                    return Recorded(by_us=False, lost=False, value=other)
                case answer:
                    return Recorded(by_us=answer == "recorded", lost=answer == "lost", value=value)
        raise StoreError("the store was reached too late")

    def _server_time_in(self, key: str, seconds: float | None) -> str:
        """The time in so many seconds of the server that has a key, as far as it is known here; None: never."""
        if seconds is None:
            return "0"
        if key not in self._server_ahead:
            now, microseconds = self._servers.ask(key, ("TIME",))
            self._server_ahead[key] = int(now) + int(microseconds) / 1_000_000 - time.monotonic()
        return f"{time.monotonic() + self._server_ahead[key] + seconds:.3f}"

    @_answers
    def records(self, key: str) -> dict[str, str]:
        """See `celery_coord.stores.Store.records`."""
        name = self._names(key).records
        found = self._servers.ask(name, ("HGETALL", name))
        # The older protocol has no maps.
        return dict(found) if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))

    @_answers
    def erase(self, lease: Lease, names: Sequence[str]) -> bool:
        """See `celery_coord.stores.Store.erase`."""
        key = self._names(lease.key)
        calls: list[Call] = [((key.lock, key.records), (lease.owner, name)) for name in names]
        answers = ERASE.run_many(self._servers, calls)
        for answer in answers:
            if isinstance(answer, RedisError):
                raise answer
        return all(answer == "erased" for answer in answers)

    @_answers
    def ask(self, key: str, request: str, seconds: float) -> None:
        """See `celery_coord.stores.Store.ask`."""
        name = self._names(key).request
        self._servers.ask(name, ("SET", name, request, "PX", milliseconds(seconds)), confirm=True)

    @_answers
    def request(self, key: str) -> str:
        """See `celery_coord.stores.Store.request`."""
        name = self._names(key).request
        return str(self._servers.ask(name, ("GET", name)) or "")

    @_answers
    def keys(self, prefix: str) -> list[str]:
        """See `celery_coord.stores.Store.keys`; it walks through all keys of the servers."""
        before = before_key_in_lease(self._namespace)
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", before + prefix) + "*"
        primaries = self._servers.primaries()
        found = {name for client in primaries for name in client.scan_iter(match=pattern, count=1000)}
        return sorted(name[len(before) : -1] for name in found)

    @_answers
    def wait(self, key: str, timeout: float) -> None:
        """See `celery_coord.stores.Store.wait`; wakes as many waiters as the one who settles says."""
        name = self._names(key).signal
        self._servers.wait(name, ("BLPOP", name, max(0.01, min(timeout, self._longest_wait))))

    def lock(self, key: str, ttl: float, label: str) -> redis_lock.Lock:
        """See `celery_coord.stores.Store.lock`; python-redis-lock counts whole seconds."""
        owner = Owner.new(label.replace("/", "-").encode("ascii", "replace").decode())
        name = self._names(key)
        servers = self._servers
        if isinstance(servers, Cluster):  # all keys of a lock are in one slot
            execute = on_node_of(name.lock, servers, timeout=self._address.timeout)
        else:
            execute = on_server(servers)
        # Not strict: the client is none of redis-py's.
        return Lock(
            LockClient(execute), name.tag, expire=math.ceil(ttl), id=str(owner), auto_renewal=True, strict=False
        )

    @_answers
    def primaries(self) -> list[redis.Redis]:
        """A client of each server that has keys."""
        return self._servers.primaries()

    @_answers
    def check(self) -> list[str]:
        """See `celery_coord.stores.Store.check`."""
        trial = Trial(self._servers, self._address, namespace=self._namespace, min_replicas=self._min_replicas)
        return trial.doubts()

    def close(self) -> None:
        """See `celery_coord.stores.Store.close`."""
        self._servers.close()


def _still_ours(answer: object) -> bool | StoreError:
    """What one answer of a batch says of its lease.

    A server that is read-only or busy for a while takes no lease away, it is asked again. A key of the wrong kind is no
    lock any more, and spoils no other lease.
    """
    if isinstance(answer, RedisError) and "WRONGTYPE" not in str(answer):
        return store_error(answer)
    return answer == "renewed"


def _kept_away(key: str, answer: Any) -> Cooling | Done:
    """A refusal that is not a holder's."""
    match answer:
        case ["done", age, told]:
            return Done(key, int(age) / 1000, told == "1")
        case ["layout", later]:
            raise NewerLayout(key, int(later), LAYOUT)
        case ["cooling", holder, left]:
            return Cooling(key, holder, _left(left))
    raise StoreError(f"the store answered {answer!r}")


def _held(key: str, holder: str, left: int, known: str) -> Held:
    """A refusal, with what the record says of the holder; it says nothing of another library's."""
    token, ttl, owner, label = [*known.split("\n", 3), "", "", "", ""][:4]
    if holder not in (owner, kept_for_next(owner)):
        return Held(key, holder, _left(left))
    return Held(key, holder, _left(left), int(token), label, int(ttl) / 1000)


def _left(milliseconds: int) -> float | None:
    return None if milliseconds == _NO_END else max(milliseconds, 0) / 1000


def _kept_ms(remember: float, cooldown: float) -> int:
    """A run is remembered for as long as it keeps others away, so that it knows its own quiet period."""
    return milliseconds(max(remember, cooldown)) if remember else 0


__all__ = ["RedisStore"]
