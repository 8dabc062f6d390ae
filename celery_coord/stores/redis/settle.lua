-- settle: end a lease and begin its quiet period in one step, for its owner only; remember that the run has ended.
--
-- KEYS: lock cooldown signal done
-- ARGV: owner generation cooldown_ms remember_ms told wake
-- returns "settled" | "lost"
local lock, cooldown, signal, done = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local owner, generation, cooldown_ms, remember_ms, told, wake = unpack(ARGV)

local holder, settled_before = redis.call("GET", lock), was_settled(done, generation, owner)
remember(done, generation, remember_ms, told, holder == owner and owner or "")

if holder ~= owner then
  -- An answer that got lost makes the client ask again: settled once is settled, whoever has the key since; and it is
  -- written for the replicas to confirm.
  if settled_before then
    return "settled"
  end
  if not holder and redis.call("LINDEX", signal, 0) == owner then
    redis.call("PEXPIRE", signal, 10000)
    return "settled"
  end
  return "lost"
end

redis.call("DEL", lock, signal)
if cooldown_ms ~= "0" and not redis.call("SET", cooldown, owner, "PX", cooldown_ms, "NX") then
  -- One that lasts longer stays.
  local left = redis.call("PTTL", cooldown)
  if left ~= -1 and left <= tonumber(cooldown_ms) then
    redis.call("SET", cooldown, owner, "PX", cooldown_ms)
  end
end
-- As python-redis-lock does it, to wake one of those who wait, or more. It also tells, for a while, who settled.
for _ = 1, tonumber(wake) do
  redis.call("LPUSH", signal, owner)
end
redis.call("PEXPIRE", signal, 10000)
return "settled"
