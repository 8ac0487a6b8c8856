-- Note that all of the log up to a position is in the slices, and give the claim back.
--
--   ARGV  6 epoch  7 ms of a slice  8 the position up to which it was before, or '-'  9 the position
--         10 number of the first slice that the log still needs
--         11.. for each slice that was added to its number, and the serial of the last row there
--   out   1, or 0 where others went on from that position, or began anew: then nothing is noted

local slice_ms = ARGV[7]
if epoch ~= ARGV[6] or (redis.call('HGET', SLICES, slice_ms) or '-') ~= ARGV[8] then
  return 0
end
redis.call('HSET', SLICES, slice_ms, ARGV[9])
redis.call('HDEL', SLICES, 'claim')
for index = 11, #ARGV, 2 do
  local field = slice_ms .. ' ' .. ARGV[index]
  local last = math.max(tonumber(redis.call('HGET', SLICES, field) or 0), tonumber(ARGV[index + 1]))
  redis.call('HSET', SLICES, field, string.format('%.0f', last))
end
for _, field in ipairs(redis.call('HKEYS', SLICES)) do
  local number = string.match(field, '^' .. slice_ms .. ' (%d+)$')
  if number and tonumber(number) < tonumber(ARGV[10]) then
    redis.call('HDEL', SLICES, field)
  end
end
keep_alive()
return 1
