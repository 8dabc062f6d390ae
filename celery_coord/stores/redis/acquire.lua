-- acquire: grant the lease on a key, or say why not.
--
-- KEYS: lock cooldown lease done layout
-- ARGV: our_layout owner run generation ttl_ms label heed_cooldown remember_ms
-- returns token                                      it is granted
--       | {"done", age_ms, told}                     the run has ended, in this generation or a later one
--       | {"cooling", holder, left_ms}               left_ms is -1 where there is no end
--       | {"held", holder, left_ms, known, begun}    known: the record of the newest lease; the holder's, unless
--                                                    another library took the lock; begun: "b" where the run that asks
--                                                    has been admitted before
--       | {"layout", later}                          a later layout is in use for the key
local lock, cooldown, lease, done, layout = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local our_layout, owner, run, generation, ttl_ms, label, heed_cooldown, remember_ms = unpack(ARGV)

local later = later_layout(layout, our_layout)
if later then
  return {"layout", later}
end

local ended_ms, told = end_of(done, generation)
if ended_ms then
  return {"done", ended_ms, told}
end

local parts = "^(.*)/(%d+)/[^/]+$"
if heed_cooldown == "1" then
  local cooled_by = redis.call("GET", cooldown)
  if cooled_by and string.match(cooled_by, parts) ~= run then
    return {"cooling", cooled_by, redis.call("PTTL", cooldown)}
  end
end

local holder, known = redis.call("GET", lock), redis.call("GET", lease)
if holder and holder ~= owner then
  local held_run, held_generation = string.match(holder, parts)
  if held_run ~= run or tonumber(held_generation) >= tonumber(generation) then
    return {"held", holder, redis.call("PTTL", lock), known or "", has_begun(done)}
  end
end

local token = known and string.match(known, "^%d+")
if not token or holder ~= owner then
  -- The server's time is the floor: tokens grow also where the last one was lost (expiry, FLUSHALL, fail-over).
  local now = redis.call("TIME")
  token = string.format("%.0f", math.max((token or 0) + 1, now[1] * 1000000 + now[2]))
end

redis.call("SET", lock, owner, "PX", ttl_ms)
begin(done, remember_ms)
-- Kept for a day past the lease: a clock that steps back by less than that cannot repeat a token.
redis.call("SET", lease, token .. "\n" .. ttl_ms .. "\n" .. owner .. "\n" .. label, "PX", ttl_ms + 86400000)
return token
