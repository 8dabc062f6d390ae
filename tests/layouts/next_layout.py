"""A made-up next layout: as different from ours as the rules in `celery_coord.stores.redis` let it be.

What it knows of its leases are hashes under another name, so that nothing but those rules keeps the two versions apart:
it takes ``lock:{NS:K}`` with its lease, keeps it and gives it back, respects what layout 1 remembers, and leaves its
number in ``coord-layout:{NS:K}`` for as long as its own lease, quiet period or memory lasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery_coord.errors import StoreError
from celery_coord.lease import Cooling, Done, Held, Lease, Owner, Refusal
from celery_coord.stores.redis import RedisStore
from celery_coord.stores.redis.names import Names

NEXT = 2

_ACQUIRE = """
local lock, cooldown1, done1, layout, lease, cooldown = unpack(KEYS)
local owner, ttl_ms, next_layout = unpack(ARGV)
local holder = redis.call("GET", lock)
if holder and holder ~= owner then
  return {"held", holder, redis.call("PTTL", lock)}
end
for _, quiet in ipairs({cooldown1, cooldown}) do
  if redis.call("EXISTS", quiet) == 1 then
    return {"cooling", redis.call("GET", quiet), redis.call("PTTL", quiet)}
  end
end
if string.match(redis.call("GET", done1) or "", "^%d") then
  return {"done"}
end
local now = redis.call("TIME")
local token = string.format("%.0f", now[1] * 1000000 + now[2])
redis.call("SET", lock, owner, "PX", ttl_ms)
redis.call("HSET", lease, "owner", owner, "token", token)
redis.call("PEXPIRE", lease, ttl_ms)
redis.call("SET", layout, next_layout, "PX", ttl_ms)
return token
"""
_RENEW = """
local lock, layout, lease = unpack(KEYS)
local owner, ttl_ms, next_layout = unpack(ARGV)
if redis.call("GET", lock) ~= owner then
  return "lost"
end
redis.call("PEXPIRE", lock, ttl_ms)
redis.call("PEXPIRE", lease, ttl_ms)
redis.call("SET", layout, next_layout, "PX", ttl_ms)
return "renewed"
"""
_SETTLE = """
local lock, signal, layout, lease, cooldown = unpack(KEYS)
local owner, cooldown_ms, next_layout = unpack(ARGV)
if redis.call("GET", lock) ~= owner then
  return "lost"
end
redis.call("DEL", lock, signal, lease, layout)
redis.call("LPUSH", signal, owner)
redis.call("PEXPIRE", signal, 10000)
if cooldown_ms ~= "0" then
  redis.call("SET", cooldown, owner, "PX", cooldown_ms)
  redis.call("SET", layout, next_layout, "PX", cooldown_ms)
end
return "settled"
"""


class NextStore(RedisStore):
    """The store of that version: what a run needs of it."""

    def acquire(
        self, key: str, owner: Owner, ttl: float, *, heed_cooldown: bool, label: str = "", remember: float = 0.0
    ) -> Lease | Refusal | Done:
        name = self._names(key)
        earlier = (name.lock, name.cooldown, name.done(owner.run), name.layout)
        answer = self._do(_ACQUIRE, (*earlier, _lease(name), _cooldown(name)), str(owner), int(ttl * 1000), NEXT)
        match answer:
            case ["held", holder, left]:
                return Held(key, holder, left / 1000)
            case ["cooling", holder, left]:
                return Cooling(key, holder, left / 1000)
            case ["done"]:
                return Done(key, 0.0, told=True)
        return Lease(key, str(owner), int(answer), ttl)

    def renew(self, leases: Sequence[Lease]) -> list[bool | StoreError]:
        return [self._renewed(lease) for lease in leases]

    def _renewed(self, lease: Lease) -> bool:
        name = self._names(lease.key)
        answer = self._do(_RENEW, (name.lock, name.layout, _lease(name)), lease.owner, int(lease.ttl * 1000), NEXT)
        return bool(answer == "renewed")

    def settle(
        self, lease: Lease, *, cooldown: float = 0.0, remember: float = 0.0, told: bool = True, wake: int = 1
    ) -> bool:
        name = self._names(lease.key)
        keys = (name.lock, name.signal, name.layout, _lease(name), _cooldown(name))
        return bool(self._do(_SETTLE, keys, lease.owner, int(cooldown * 1000), NEXT) == "settled")

    def _do(self, source: str, keys: Sequence[str], *args: str | int) -> Any:
        return self._servers.ask(keys[0], ("EVAL", source, len(keys), *keys, *args))


def _lease(name: Names) -> str:
    return f"coord{NEXT}-lease:{name.tag}"


def _cooldown(name: Names) -> str:
    return f"coord{NEXT}-cooldown:{name.tag}"
