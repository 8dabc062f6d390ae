"""`RedisStore`: the port on one server; what is in the server is in the package's docstring."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import cached_property, wraps
from typing import ParamSpec, TypeVar

import redis
import redis_lock
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError

from celery_coord.errors import ConfigurationError, StoreError
from celery_coord.lease import Cooling, Held, Lease, Look, Owner, Refusal
from celery_coord.stores.redis.client import client_from
from celery_coord.stores.redis.lines import Lines
from celery_coord.stores.redis.scripts import Call, Script

#: The oldest server that is tested.
OLDEST = (6, 2)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_ACQUIRE = Script("acquire")
_RENEW = Script("renew")
_SETTLE = Script("settle")
_COOL = Script("cool")
_LOOK = Script("look")

_NO_END = -1


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

    @classmethod
    def from_url(cls, url: str, *, namespace: str, timeout: float) -> RedisStore:
        """A store with a client of its own; see `celery_coord.stores.open_store`."""
        return cls(client_from(url, timeout=timeout), namespace=namespace, longest_wait=min(1.0, timeout / 2))

    def _name(self, key: str) -> str:
        return f"{{{self._namespace}:{key}}}"

    @_answers
    def acquire(self, key: str, owner: Owner, ttl: float, *, heed_cooldown: bool, label: str = "") -> Lease | Refusal:
        """See `celery_coord.stores.Store.acquire`."""
        name, owner_id = self._name(key), str(owner)
        answer = _ACQUIRE.run(
            self._lines,
            (f"lock:{name}", f"coord-cooldown:{name}", f"coord-lease:{name}"),
            owner_id,
            _ms(ttl),
            label,
            int(heed_cooldown),
        )
        match answer:
            case str(token):
                return Lease(key, owner_id, int(token), ttl)
            case ["cooling", holder, left]:
                return Cooling(key, holder, _left(left))
            case ["held", holder, left, known]:
                return _held(key, holder, left, known)
        raise StoreError(f"acquire answered {answer!r}")

    @_answers
    def renew(self, leases: Sequence[Lease]) -> list[bool]:
        """See `celery_coord.stores.Store.renew`."""
        calls: list[Call] = []
        for lease in leases:
            name = self._name(lease.key)
            calls.append(((f"lock:{name}", f"coord-lease:{name}"), (lease.owner, _ms(lease.ttl))))
        return [_still_ours(answer) for answer in _RENEW.run_many(self._client, calls)]

    @_answers
    def settle(self, lease: Lease, *, cooldown: float = 0.0) -> bool:
        """See `celery_coord.stores.Store.settle`."""
        name = self._name(lease.key)
        keys = (f"lock:{name}", f"coord-cooldown:{name}", f"lock-signal:{name}")
        return bool(_SETTLE.run(self._lines, keys, lease.owner, _ms(cooldown)) == "settled")

    @_answers
    def cool(self, key: str, owner: Owner, seconds: float) -> None:
        """See `celery_coord.stores.Store.cool`."""
        _COOL.run(self._lines, (f"coord-cooldown:{self._name(key)}",), str(owner), _ms(seconds))

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
    def wait(self, key: str, timeout: float) -> None:
        """See `celery_coord.stores.Store.wait`; wakes one waiter per settled lease."""
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


def _held(key: str, holder: str, left: int, known: str) -> Held:
    """A refusal, with what the record says of the holder; it says nothing of another library's."""
    token, _, rest = known.partition("\n")
    owner, _, label = rest.partition("\n")
    return Held(key, holder, _left(left), int(token), label) if owner == holder else Held(key, holder, _left(left))


def _left(milliseconds: int) -> float | None:
    return None if milliseconds == _NO_END else max(milliseconds, 0) / 1000


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


__all__ = ["OLDEST", "RedisStore"]
