-- Note that slices were lost: all of the log from their beginning on has to be moved into slices again.
--
--   ARGV  6 epoch  7 ms of a slice  8.. numbers of the slices

if epoch ~= ARGV[6] then
  return
end
local slice_ms = ARGV[7]
for index = 8, #ARGV do
  redis.call('HDEL', SLICES, slice_ms .. ' ' .. ARGV[index], 'claim')
  local start_ms, moved = tonumber(slice_ms) * tonumber(ARGV[index]), redis.call('HGET', SLICES, slice_ms)
  if moved and ms_of(moved) >= start_ms then
    redis.call('HSET', SLICES, slice_ms, string.format('%.0f-0', start_ms))
  end
end
