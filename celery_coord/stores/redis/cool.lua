-- cool: begin a quiet period without a lease; one that lasts longer stays.
--
-- KEYS: cooldown
-- ARGV: owner cooldown_ms
-- returns "cooling"
local cooldown = KEYS[1]
local owner, cooldown_ms = unpack(ARGV)

local left = redis.call("PTTL", cooldown)
if left ~= -1 and left <= tonumber(cooldown_ms) then
  redis.call("SET", cooldown, owner, "PX", cooldown_ms)
end
return "cooling"
