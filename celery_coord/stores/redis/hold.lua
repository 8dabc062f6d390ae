-- hold: keep a key for the next generation of a run; what is kept is nobody's to renew or to settle.
--
-- KEYS: lock done
-- ARGV: owner generation kept_ms remember_ms heir
-- returns "held" | "lost"
local lock, done = KEYS[1], KEYS[2]
local owner, generation, kept_ms, remember_ms, heir = unpack(ARGV)

remember(done, generation, remember_ms, "1", "")

local holder = redis.call("GET", lock)
if holder ~= owner then
  -- An answer that got lost makes the client ask again: kept once is kept, and written for the replicas to confirm.
  if holder == heir then
    redis.call("PEXPIRE", lock, kept_ms)
    return "held"
  end
  return "lost"
end
redis.call("SET", lock, heir, "PX", kept_ms)
return "held"
