-- cool: begin a quiet period without a lease, and remember that the run has ended; a period that lasts longer stays.
--
-- KEYS: cooldown done
-- ARGV: owner generation cooldown_ms remember_ms told
-- returns "cooling"
local cooldown, done = KEYS[1], KEYS[2]
local owner, generation, cooldown_ms, remember_ms, told = unpack(ARGV)

remember(done, generation, remember_ms, told, "")

if cooldown_ms ~= "0" then
  local left = redis.call("PTTL", cooldown)
  if left ~= -1 and left <= tonumber(cooldown_ms) then
    redis.call("SET", cooldown, owner, "PX", cooldown_ms)
  end
end
return "cooling"
