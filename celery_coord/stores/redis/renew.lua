-- renew: let a lease last its ttl from now, for its owner only.
--
-- KEYS: lock
-- ARGV: owner ttl_ms
-- returns "renewed" | "lost"
local lock = KEYS[1]
local owner, ttl_ms = unpack(ARGV)

if redis.call("GET", lock) ~= owner then
  return "lost"
end
redis.call("PEXPIRE", lock, ttl_ms)
return "renewed"
