-- look: who holds a key and whether it is cooling, at one instant.
--
-- KEYS: lock cooldown lease
-- ARGV:
-- returns {holder, left_ms, token, label, cooled_by, cooling_ms}   a left_ms or cooling_ms of -2: no such thing
local lock, cooldown, lease = KEYS[1], KEYS[2], KEYS[3]

local holder = redis.call("GET", lock) or ""
local known = redis.call("HMGET", lease, "owner", "token", "label")
if known[1] ~= holder then
  known = {false, "", ""}
end
return {
  holder, redis.call("PTTL", lock), known[2], known[3],
  redis.call("GET", cooldown) or "", redis.call("PTTL", cooldown),
}
