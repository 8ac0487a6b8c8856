-- Claim the right to move rows of the log into slices, and tell how far that is done.
--
--   ARGV  6 ms of a slice  7 who claims it  8 for how many ms
--   out   1 if the claim is granted, and fields and values of `slices`

local owner, until_ms = string.match(redis.call('HGET', SLICES, 'claim') or '', '^(%S+) (%d+)$')
local granted = epoch and (not owner or owner == ARGV[7] or tonumber(until_ms) <= now_ms)
if granted then
  redis.call('HSET', SLICES, 'claim', string.format('%s %.0f', ARGV[7], now_ms + tonumber(ARGV[8])))
  keep_alive()
end
return {granted and 1 or 0, redis.call('HGETALL', SLICES)}
