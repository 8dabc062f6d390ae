-- renew: let a lease last its ttl from now, for its owner only; and its run be remembered as begun for long enough.
--
-- KEYS: lock lease done
-- ARGV: owner ttl_ms remember_ms
-- returns "renewed" | "lost"
local lock, lease, done = KEYS[1], KEYS[2], KEYS[3]
local owner, ttl_ms, remember_ms = unpack(ARGV)

if redis.call("GET", lock) ~= owner then
  return "lost"
end
redis.call("PEXPIRE", lock, ttl_ms)
redis.call("PEXPIRE", lease, ttl_ms + 86400000)
-- A body may run for longer than its run is remembered: its message may still come again when it has died after that.
keep(done, remember_ms)
return "renewed"
