-- refuses: what keeps a run away that takes no lease.
--
-- KEYS: cooldown done layout
-- ARGV: our_layout run generation heed_cooldown
-- returns "nothing"
--       | {"done", age_ms, told}                     the run has ended, in this generation or a later one
--       | {"cooling", holder, left_ms}               left_ms is -1 where there is no end
--       | {"layout", later}                          a later layout is in use for the key
local cooldown, done, layout = KEYS[1], KEYS[2], KEYS[3]
local our_layout, run, generation, heed_cooldown = unpack(ARGV)

local later = later_layout(layout, our_layout)
if later then
  return {"layout", later}
end

local ended_ms, told = end_of(done, generation)
if ended_ms then
  return {"done", ended_ms, told}
end

local cooled_by = heed_cooldown == "1" and redis.call("GET", cooldown)
if cooled_by and string.match(cooled_by, "^(.*)/%d+/[^/]+$") ~= run then
  return {"cooling", cooled_by, redis.call("PTTL", cooldown)}
end
return "nothing"
