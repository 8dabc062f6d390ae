-- acquire: grant the lease on a key, or say why not.
--
-- KEYS: lock cooldown lease
-- ARGV: owner ttl_ms label heed_cooldown
-- returns token                                      it is granted
--       | {"held", holder, left_ms, known}           known: the record of the newest lease; the holder's, unless
--                                                    another library took the lock
--       | {"cooling", holder, left_ms}               left_ms is -1 where there is no end
local lock, cooldown, lease = KEYS[1], KEYS[2], KEYS[3]
local owner, ttl_ms, label, heed_cooldown = unpack(ARGV)

if heed_cooldown == "1" then
  local cooling = redis.call("PTTL", cooldown)
  if cooling ~= -2 then
    return {"cooling", redis.call("GET", cooldown), cooling}
  end
end

local holder, known = redis.call("GET", lock), redis.call("GET", lease)
if holder and holder ~= owner then
  local parts = "^(.*)/(%d+)/[^/]+$"
  local run, generation = string.match(owner, parts)
  local held_run, held_generation = string.match(holder, parts)
  if held_run ~= run or tonumber(held_generation) >= tonumber(generation) then
    return {"held", holder, redis.call("PTTL", lock), known or ""}
  end
end

local token = known and string.match(known, "^%d+")
if not token or holder ~= owner then
  -- The server's time is the floor: tokens grow also where the last one was lost (expiry, FLUSHALL, fail-over).
  local now = redis.call("TIME")
  token = string.format("%.0f", math.max((token or 0) + 1, now[1] * 1000000 + now[2]))
end

redis.call("SET", lock, owner, "PX", ttl_ms)
-- Kept for a day past the lease: a clock that steps back by less than that cannot repeat a token.
redis.call("SET", lease, token .. "\n" .. owner .. "\n" .. label, "PX", ttl_ms + 86400000)
return token
