"""`RedisStore`: the port on one server; what is in the server is in the package's docstring."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, wraps
from typing import Any, ParamSpec, TypeVar

import redis
import redis_lock
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError

from celery_coord.errors import ConfigurationError, StoreError
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
from celery_coord.stores.redis.client import client_from
from celery_coord.stores.redis.lines import Lines
from celery_coord.stores.redis.scripts import Call, Script

#: The oldest server that is tested.
OLDEST = (6, 2)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_ACQUIRE = Script("acquire", after="ended")
_RENEW = Script("renew")
_SETTLE = Script("settle", after="ended")
_HOLD = Script("hold", after="ended")
_REFUSES = Script("refuses", after="ended")
_COOL = Script("cool", after="ended")
_LOOK = Script("look")
_RECORD = Script("record")
_ERASE = Script("erase")

_NO_END = -1
#: For how long what a leader wrote down is kept when nobody writes: longer than a year, which a schedule may span.
_KEEP_RECORDS = 400 * 86400.0


def _answers(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Any failure of the client becomes the port's one error."""

    @wraps(method)
    def answering(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return method(*args, **kwargs)
        except RedisError as error:
            raise StoreError(f"{type(error).__name__}: {error}") from error

    return answering


class RedisStore:
    """Leases in a Redis or Valkey server.

    Args:
        client: a client that answers with text (``decode_responses``), bounded in time.
        namespace: what the keys of this application begin with.
        longest_wait: for how long one `wait` may block, in seconds; less than the client's socket timeout.
    """

    def __init__(self, client: redis.Redis, *, namespace: str = "coord", longest_wait: float = 1.0) -> None:
        self._client = client
        self._lines = Lines(client)
        self._namespace = namespace
        self._longest_wait = longest_wait
        self._server_ahead: float | None = None  # of this process's monotonic clock

    @classmethod
    def from_url(cls, url: str, *, namespace: str, timeout: float) -> RedisStore:
        """A store with a client of its own; see `celery_coord.stores.open_store`."""
        return cls(client_from(url, timeout=timeout), namespace=namespace, longest_wait=min(1.0, timeout / 2))

    def _name(self, key: str) -> str:
        return f"{{{self._namespace}:{key}}}"

    def _done(self, name: str, run: str) -> str:
        return f"coord-done:{name}:{run}"

    @_answers
    def acquire(
        self, key: str, owner: Owner, ttl: float, *, heed_cooldown: bool, label: str = "", remember: float = 0.0
    ) -> Lease | Refusal | Done:
        """See `celery_coord.stores.Store.acquire`."""
        name, owner_id = self._name(key), str(owner)
        answer = _ACQUIRE.run(
            self._lines,
            (f"lock:{name}", f"coord-cooldown:{name}", f"coord-lease:{name}", self._done(name, owner.run)),
            owner_id,
            owner.run,
            owner.generation,
            _ms(ttl),
            label,
            int(heed_cooldown),
            _ms(remember),
        )
        match answer:
            case str(token):
                return Lease(key, owner_id, int(token), ttl)
            case ["held", holder, left, known, begun]:
                return replace(_held(key, holder, left, known), begun=bool(begun))
        return _kept_away(key, answer)

    @_answers
    def refuses(self, key: str, owner: Owner, *, heed_cooldown: bool) -> Cooling | Done | None:
        """See `celery_coord.stores.Store.refuses`."""
        name = self._name(key)
        keys = (f"coord-cooldown:{name}", self._done(name, owner.run))
        answer = _REFUSES.run(self._lines, keys, owner.run, owner.generation, int(heed_cooldown))
        return None if answer == "nothing" else _kept_away(key, answer)

    @_answers
    def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """See `celery_coord.stores.Store.renew`."""
        calls: list[Call] = []
        for lease in leases:
            name = self._name(lease.key)
            calls.append(((f"lock:{name}", f"coord-lease:{name}"), (lease.owner, _ms(lease.ttl))))
        return [_still_ours(answer) for answer in _RENEW.run_many(self._client, calls)]

    @_answers
    def settle(
        self, lease: Lease, *, cooldown: float = 0.0, remember: float = 0.0, told: bool = True, wake: int = 1
    ) -> bool:
        """See `celery_coord.stores.Store.settle`."""
        name = self._name(lease.key)
        run, generation = run_and_generation(lease.owner)
        keys = (f"lock:{name}", f"coord-cooldown:{name}", f"lock-signal:{name}", self._done(name, run))
        args = (lease.owner, generation, _ms(cooldown), _kept_ms(remember, cooldown), int(told), wake)
        return bool(_SETTLE.run(self._lines, keys, *args) == "settled")

    @_answers
    def hold(self, lease: Lease, seconds: float, *, remember: float = 0.0) -> bool:
        """See `celery_coord.stores.Store.hold`."""
        name = self._name(lease.key)
        run, generation = run_and_generation(lease.owner)
        args = (lease.owner, generation, _ms(seconds), _ms(remember), kept_for_next(lease.owner))
        return bool(_HOLD.run(self._lines, (f"lock:{name}", self._done(name, run)), *args) == "held")

    @_answers
    def cool(self, key: str, owner: Owner, seconds: float, *, remember: float = 0.0, told: bool = True) -> None:
        """See `celery_coord.stores.Store.cool`."""
        name = self._name(key)
        keys = (f"coord-cooldown:{name}", self._done(name, owner.run))
        args = (str(owner), owner.generation, _ms(seconds), _kept_ms(remember, seconds), int(told))
        _COOL.run(self._lines, keys, *args)

    @_answers
    def forget(self, key: str, owner: Owner) -> None:
        """See `celery_coord.stores.Store.forget`."""
        self._lines.ask("DEL", self._done(self._name(key), owner.run))

    @_answers
    def clear(self, key: str) -> bool:
        """See `celery_coord.stores.Store.clear`."""
        return bool(self._lines.ask("DEL", f"coord-cooldown:{self._name(key)}"))

    @_answers
    def look(self, key: str) -> Look:
        """See `celery_coord.stores.Store.look`."""
        name = self._name(key)
        keys = (f"lock:{name}", f"coord-cooldown:{name}", f"coord-lease:{name}")
        holder, left, known, cooled_by, cooling = _LOOK.run(self._lines, keys)
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
        key = self._name(lease.key)
        keys = (f"lock:{key}", f"coord-records:{key}")
        args = (lease.owner, name, value, was or "", int(was is not None), int(by_holder), _ms(_KEEP_RECORDS))
        for _ in range(2):
            match _RECORD.run(self._lines, keys, *args, self._server_time_in(within)):
                case ["late", str(now)]:  # or the server's clock was set: then it is in time the second time
                    self._server_ahead = float(now) - time.monotonic()
                case ["other", str(other)]:
                    return Recorded(by_us=False, lost=False, value=other)
                case answer:
                    return Recorded(by_us=answer == "recorded", lost=answer == "lost", value=value)
        raise StoreError("the store was reached too late")

    def _server_time_in(self, seconds: float | None) -> str:
        """The server's time in so many seconds, as far as it is known here; None: never."""
        if seconds is None:
            return "0"
        if self._server_ahead is None:
            now, microseconds = self._lines.ask("TIME")
            self._server_ahead = int(now) + int(microseconds) / 1_000_000 - time.monotonic()
        return f"{time.monotonic() + self._server_ahead + seconds:.3f}"

    @_answers
    def records(self, key: str) -> dict[str, str]:
        """See `celery_coord.stores.Store.records`."""
        found = self._lines.ask("HGETALL", f"coord-records:{self._name(key)}")
        # The older protocol has no maps.
        return dict(found) if isinstance(found, dict) else dict(zip(found[::2], found[1::2], strict=True))

    @_answers
    def erase(self, lease: Lease, names: Sequence[str]) -> bool:
        """See `celery_coord.stores.Store.erase`."""
        key = self._name(lease.key)
        calls: list[Call] = [((f"lock:{key}", f"coord-records:{key}"), (lease.owner, name)) for name in names]
        return all(answer == "erased" for answer in _ERASE.run_many(self._client, calls))

    @_answers
    def ask(self, key: str, request: str, seconds: float) -> None:
        """See `celery_coord.stores.Store.ask`."""
        self._lines.ask("SET", f"coord-ask:{self._name(key)}", request, "PX", _ms(seconds))

    @_answers
    def request(self, key: str) -> str:
        """See `celery_coord.stores.Store.request`."""
        return str(self._lines.ask("GET", f"coord-ask:{self._name(key)}") or "")

    @_answers
    def keys(self, prefix: str) -> list[str]:
        """See `celery_coord.stores.Store.keys`; it walks through all keys of the server."""
        before = f"coord-lease:{{{self._namespace}:"
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", before + prefix) + "*"
        return sorted({name[len(before) : -1] for name in self._client.scan_iter(match=pattern, count=1000)})

    @_answers
    def wait(self, key: str, timeout: float) -> None:
        """See `celery_coord.stores.Store.wait`; wakes as many waiters as the one who settles says."""
        self._lines.ask("BLPOP", f"lock-signal:{self._name(key)}", max(0.01, min(timeout, self._longest_wait)))

    def lock(self, key: str, ttl: float, label: str) -> redis_lock.Lock:
        """See `celery_coord.stores.Store.lock`; python-redis-lock counts whole seconds."""
        owner = Owner.new(label.replace("/", "-").encode("ascii", "replace").decode())
        return redis_lock.Lock(self._patient, self._name(key), expire=math.ceil(ttl), id=str(owner), auto_renewal=True)

    @cached_property
    def _patient(self) -> redis.Redis:
        """A client for who waits for a lock: that may take longer than an answer may."""
        pool = self._client.connection_pool
        options = {**pool.connection_kwargs, "socket_timeout": None, "socket_keepalive": True}
        return redis.Redis(connection_pool=redis.ConnectionPool(pool.connection_class, **options))

    def check(self) -> None:
        """See `celery_coord.stores.Store.check`."""
        version = self._version()
        if version < OLDEST:
            msg = (
                f"coord_url names a server that is too old: it is a Redis {'.'.join(map(str, version))}, "
                f"and Redis {'.'.join(map(str, OLDEST))} or Valkey is needed"
            )
            raise ConfigurationError(msg)

    @_answers
    def _version(self) -> tuple[int, ...]:
        try:
            self._client.ping()
            said = str(self._client.info("server").get("redis_version", ""))
        except NoPermissionError:
            return OLDEST  # an account may be kept from asking; what it may do is found when it does it
        except (AuthenticationError, AuthorizationError) as error:
            msg = (
                f"coord_url names a server that refuses us ({type(error).__name__}): "
                "check its user and password, coord_url = 'redis://user:password@host:6379/0'"
            )
            raise ConfigurationError(msg) from None
        except ResponseError as error:
            if "unknown command" not in str(error).lower():
                raise
            return (5,)  # redis-py may greet with HELLO, which came with Redis 6
        return tuple(int(part) for part in re.findall(r"\d+", said)[:2])

    def close(self) -> None:
        """See `celery_coord.stores.Store.close`."""
        self._lines.close()
        self._client.close()
        if "_patient" in vars(self):
            self._patient.close()


def _still_ours(answer: object) -> bool:
    """What one answer of a batch says of its lease.

    Raises:
        RedisError: nothing: a server that is read-only or busy for a while takes no lease away, it is asked again.
    """
    if isinstance(answer, RedisError) and "WRONGTYPE" not in str(answer):
        raise answer
    return answer == "renewed"  # a key of the wrong kind is no lock any more, and spoils no other lease


def _kept_away(key: str, answer: Any) -> Cooling | Done:
    """A refusal that is not a holder's."""
    match answer:
        case ["done", age, told]:
            return Done(key, int(age) / 1000, told == "1")
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


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _kept_ms(remember: float, cooldown: float) -> int:
    """A run is remembered for as long as it keeps others away, so that it knows its own quiet period."""
    return _ms(max(remember, cooldown)) if remember else 0


__all__ = ["OLDEST", "RedisStore"]
