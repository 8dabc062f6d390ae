-- layout: how what is in the server is laid out. Stands before the acts that admit somebody.

-- The layout that is in use for a key, where it is later than ours; or nil.
local function later_layout(layout, ours)
  local used = redis.call("GET", layout)
  if used and tonumber(used) > tonumber(ours) then
    return used
  end
end

