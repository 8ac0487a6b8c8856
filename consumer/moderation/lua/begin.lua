-- Begin a copy of the banks, by leave of the lease, unless there is a whole one.
--
--   KEYS  as of write.lua
--   ARGV  1 holder of the lease  2 the epoch of a copy that is begun  3 id of the topic: a copy of another one of the
--         same name, which was there before, is begun anew
--   out   fields and values of `meta`; none when the lease is another's by now

if redis.call('GET', KEYS[6]) ~= ARGV[1] then
  return {}
end
local topic = redis.call('HGET', KEYS[4], 'topic') or ARGV[3]
if topic ~= ARGV[3] or not is_whole() then
  redis.call('DEL', unpack(KEYS, 1, 5))
  redis.call('HSET', KEYS[4], 'epoch', ARGV[2], 'serial', 0, 'floor', 0, 'featured', 0, 'topic', ARGV[3],
    'remade', topic ~= ARGV[3] and 1 or 0)
end
return redis.call('HGETALL', KEYS[4])
