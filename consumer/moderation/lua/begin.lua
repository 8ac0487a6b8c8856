-- Begin a copy of the banks, by leave of the lease, unless there is a whole one.
--
--   KEYS  as of write.lua
--   ARGV  1 holder of the lease  2 the epoch of a copy that is begun
--   out   fields and values of `meta`; none when the lease is another's by now

if redis.call('GET', KEYS[6]) ~= ARGV[1] then
  return {}
end
if not is_whole() then
  redis.call('DEL', unpack(KEYS, 1, 5))
  redis.call('HSET', KEYS[4], 'epoch', ARGV[2], 'serial', 0, 'floor', 0, 'featured', 0)
end
return redis.call('HGETALL', KEYS[4])
