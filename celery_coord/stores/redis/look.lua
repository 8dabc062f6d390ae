-- look: who holds a key and whether it is cooling, at one instant.
--
-- KEYS: lock cooldown lease
-- ARGV:
-- returns {holder, left_ms, known, cooled_by, cooling_ms}   empty where there is no such thing; known: the record of
--                                                           the newest lease
local lock, cooldown, lease = KEYS[1], KEYS[2], KEYS[3]

return {
  redis.call("GET", lock) or "", redis.call("PTTL", lock), redis.call("GET", lease) or "",
  redis.call("GET", cooldown) or "", redis.call("PTTL", cooldown),
}
