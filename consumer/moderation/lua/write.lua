-- Write banks and entries, by leave of the lease.
--
--   KEYS  1 log  2 rows  3 features  4 meta  5 gone  6 lease
--   ARGV  1 holder of the lease  2 epoch  3 most removals that are remembered  4 number of partitions
--         5.. for each of these: partition, next offset; then for each name: name, row or '' to remove it, features or ''
--   out   1, or 0 when the lease is another's by now or Redis has lost what was written before
--
--   log       sorted set: name -> the serial of its last change, also of names that were removed
--   rows      hash: name -> row, see consumer/moderation/store.py
--   features  hash: name -> local features and thumbnail
--   meta      hash: epoch, serial, floor; featured, how many have features; topic, its id, and remade, 1 if another
--             topic had its name before; for each partition of it `at:<partition>`, the next offset to be read
--   gone      sorted set: names that were removed, by serial; the oldest are forgotten, and `floor` is the serial of
--             the last one forgotten: whoever has read less far begins anew

local LOG, ROWS, FEATURES, META, GONE, LEASE = unpack(KEYS)
if redis.call('GET', LEASE) ~= ARGV[1] or redis.call('HGET', META, 'epoch') ~= ARGV[2] then
  return 0
end

local first_row = 5 + 2 * tonumber(ARGV[4])
for index = 5, first_row - 1, 2 do
  redis.call('HSET', META, 'at:' .. ARGV[index], ARGV[index + 1])
end
for index = first_row, #ARGV, 3 do
  local name, row, features = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  local known = redis.call('HEXISTS', ROWS, name) == 1
  if row ~= '' then
    redis.call('HSET', ROWS, name, row)
    redis.call('ZADD', LOG, redis.call('HINCRBY', META, 'serial', 1), name)
    redis.call('ZREM', GONE, name)
  elseif known then
    local serial = redis.call('HINCRBY', META, 'serial', 1)
    redis.call('HDEL', ROWS, name)
    redis.call('ZADD', LOG, serial, name)
    redis.call('ZADD', GONE, serial, name)
  end
  if features ~= '' then
    redis.call('HSET', FEATURES, name, features)
  elseif known then
    redis.call('HDEL', FEATURES, name)
  end
end

local surplus = redis.call('ZCARD', GONE) - tonumber(ARGV[3])
if surplus > 0 then
  local forgotten = redis.call('ZRANGE', GONE, 0, surplus - 1, 'WITHSCORES')
  for index = 1, #forgotten, 2 do
    redis.call('ZREM', LOG, forgotten[index])
    redis.call('ZREM', GONE, forgotten[index])
    redis.call('HSET', META, 'floor', forgotten[index + 1])
  end
end
redis.call('HSET', META, 'featured', redis.call('HLEN', FEATURES))
return 1
