-- renew: let a lease last its ttl from now, for its owner only.
--
-- KEYS: lock lease
-- ARGV: owner ttl_ms
-- returns "renewed" | "lost"
local lock, lease = KEYS[1], KEYS[2]
local owner, ttl_ms = unpack(ARGV)

if redis.call("GET", lock) ~= owner then
  return "lost"
end
redis.call("PEXPIRE", lock, ttl_ms)
redis.call("PEXPIRE", lease, ttl_ms + 86400000)
return "renewed"
