-- record: write down a fact about what is led, for the holder of its lease, and only over what the writer knew.
--
-- KEYS: lock records
-- ARGV: owner name value was checked by_holder keep_ms till
-- returns "recorded" | "lost"
--       | {"other", value}      checked: 1 where `was` must still stand there, empty for nothing
--       | {"late", now}         till: the server's time from which on nobody waits for it any more; 0: never
--                               by_holder: 1 where the lease must be the owner's; an empty value erases
local lock, records = KEYS[1], KEYS[2]
local owner, name, value, was, checked, by_holder, keep_ms, till = unpack(ARGV)

local current = redis.call("HGET", records, name) or ""
if current == value then
  -- An answer that got lost makes the client ask again. It is written once more: what replicas confirm is a write.
  redis.call("PEXPIRE", records, keep_ms)
  return "recorded"
end
local time = redis.call("TIME")
local now = time[1] + time[2] / 1000000
if till ~= "0" and now > tonumber(till) then
  return {"late", string.format("%.6f", now)}
end
if by_holder == "1" and redis.call("GET", lock) ~= owner then
  return "lost"
end
if checked == "1" and current ~= was then
  return {"other", current}
end
if value == "" then
  redis.call("HDEL", records, name)
else
  redis.call("HSET", records, name, value)
  redis.call("PEXPIRE", records, keep_ms)
end
return "recorded"
