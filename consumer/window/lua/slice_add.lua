-- Add a row to a slice, unless it is there, or was deleted.
--
--   ARGV  1 ms to live  2 serial of the row that was added before it, 0 for the first one  3 position  4 serial  5 attributes  6 vector
--         7 effort
--   out   1, or 0 where the slice is not there as it was when the row before was added

local position, serial, last = ARGV[3], tonumber(ARGV[4]), last_row()
if last < tonumber(ARGV[2]) then
  return 0
end
-- The first row that a slice is filled with again.
if not is_whole() then
  redis.call('DEL', VECTORS)
  redis.call('HDEL', SLICE, 'last', 'rows')
end
if tonumber(ARGV[2]) == 0 then
  redis.call('HSET', SLICE, 'begun', table.concat(redis.call('TIME'), '.'))
end
if redis.call('HEXISTS', SLICE, position) == 0 and redis.call('VISMEMBER', VECTORS, position) == 0 then
  redis.call('VADD', VECTORS, 'FP32', ARGV[6], position, 'Q8', 'EF', ARGV[7], 'SETATTR', ARGV[5])
  redis.call('HINCRBY', SLICE, 'rows', 1)
end
if serial > last then
  redis.call('HSET', SLICE, 'last', ARGV[4])
end
keep_alive(ARGV[1])
return 1
