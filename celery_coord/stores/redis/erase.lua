-- erase: take back a fact that is of no use any more, for the holder of the lease only.
--
-- KEYS: lock records
-- ARGV: owner name
-- returns "erased" | "lost"
local lock, records = KEYS[1], KEYS[2]
local owner, name = unpack(ARGV)

if redis.call("GET", lock) ~= owner then
  return "lost"
end
redis.call("HDEL", records, name)
return "erased"
