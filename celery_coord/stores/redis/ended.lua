-- ended: which runs have ended, as the acts know it. Stands before those that ask or remember it.
--
-- A run that has ended is one key: its generation, when that was in milliseconds, and whether all were told (1 or 0);
-- then the last part of the owner that ended it as the holder of its lease.
-- One that was admitted, and is not known to have ended, is the same key with a "b".
local function now_ms()
  local now = redis.call("TIME")
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- How many milliseconds ago the run ended in this generation or a later one, and whether all were told; or nil.
local function end_of(done, generation)
  local ended_generation, ended_at, told = string.match(redis.call("GET", done) or "", "(%d+) (%d+) (%d)")
  if ended_generation and tonumber(ended_generation) >= tonumber(generation) then
    return string.format("%.0f", now_ms() - ended_at), told
  end
end

-- What is known of a run is known for so long from now, at the least.
local function keep(done, remember_ms)
  if redis.call("PTTL", done) < tonumber(remember_ms) then
    redis.call("PEXPIRE", done, remember_ms)
  end
end

-- The run is admitted. What is known of the end of an earlier generation stays: it says as much.
local function begin(done, remember_ms)
  if remember_ms ~= "0" and not redis.call("SET", done, "b", "PX", remember_ms, "NX") then
    keep(done, remember_ms)
  end
end

-- "b" where the run has been admitted before, else nothing.
local function has_begun(done)
  return redis.call("EXISTS", done) == 1 and "b" or ""
end

-- The last part of an owner.
local function nonce_of(owner)
  return string.match(owner, "([^/]*)$")
end

-- Whether the run has ended in this generation, by this owner, as the holder of its lease.
local function was_settled(done, generation, owner)
  local ended, by = string.match(redis.call("GET", done) or "", "^(%d+) %d+ %d (.*)$")
  return ended == generation and by == nonce_of(owner)
end

-- The end of a later generation may be known before that of an earlier one: it stays. One that was not told may be now.
-- settler: the owner, where it holds its lease; else nothing.
local function remember(done, generation, remember_ms, told, settler)
  if remember_ms == "0" then
    return
  end
  local by = settler ~= "" and " " .. nonce_of(settler) or ""
  local known, ended_at, was_told, was_by = string.match(redis.call("GET", done) or "", "(%d+) (%d+) (%d)(.*)")
  if not known or tonumber(known) < tonumber(generation) then
    local now = string.format("%.0f", now_ms())
    redis.call("SET", done, generation .. " " .. now .. " " .. told .. by, "PX", remember_ms)
    return
  end
  if known == generation and told == "1" then
    was_told = "1"
  end
  -- Also where it is as it was: asked again, it is written for the replicas to confirm.
  by = known == generation and by ~= "" and by or was_by
  redis.call("SET", done, known .. " " .. ended_at .. " " .. was_told .. by, "KEEPTTL")
end

