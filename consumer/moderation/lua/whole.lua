-- Put before the scripts that ask whether what was written is still all there: a server short of memory may have evicted
-- a part, and what is left is of no use.
local function is_whole()
  local LOG, ROWS, FEATURES, META, GONE = unpack(KEYS)
  local featured = redis.call('HGET', META, 'featured')
  return featured
    and redis.call('ZCARD', LOG) - redis.call('ZCARD', GONE) == redis.call('HLEN', ROWS)
    and tonumber(featured) == redis.call('HLEN', FEATURES)
end
