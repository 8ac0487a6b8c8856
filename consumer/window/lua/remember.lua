-- Remember what was found near uploads, unless that is remembered already: a repeat is told the same.
--
--   ARGV  6 epoch  7.. for each upload its position and what was found
--   out   for each upload what is remembered, or, where its row is not in the window, what was found

local remembered = {}
for index = 7, #ARGV, 2 do
  local position, found = ARGV[index], ARGV[index + 1]
  if epoch == ARGV[6] and redis.call('HEXISTS', ROWS, position) == 1 then
    redis.call('HSETNX', NEAR, position, found)
    found = redis.call('HGET', NEAR, position)
  end
  remembered[#remembered + 1] = found
end
if epoch == ARGV[6] then
  redis.call('PEXPIRE', NEAR, retention_ms + grace_ms)
end
return remembered
