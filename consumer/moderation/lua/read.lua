-- Read what changed of banks and entries after a serial. Writes nothing.
--
--   KEYS  as of write.lua, without the lease
--   ARGV  1 the epoch that was read before, or ''  2 serial read up to  3 limit  4 `floor` as it was when the reader began
--   out   epoch, or '' where nothing is stored; the serial that is read up to now; 1 if there is more;
--         1 if the reader has to forget all that it read before; name, serial and row of each change, '' for a row that
--         was removed, one after the other; fields and values of `meta`

local LOG, ROWS, _, META = unpack(KEYS)
local epoch = redis.call('HGET', META, 'epoch')
if not is_whole() then
  return {'', 0, 0, 1, {}, {}}
end

local after, limit, anew = tonumber(ARGV[2]), tonumber(ARGV[3]), 0
-- Removals that are forgotten by now matter to a reader that began before they were, and has not read as far.
local floor = tonumber(redis.call('HGET', META, 'floor') or 0)
if epoch ~= ARGV[1] or floor > math.max(after, tonumber(ARGV[4])) then
  after, anew = 0, 1
end
local changed = redis.call('ZRANGEBYSCORE', LOG, '(' .. string.format('%.0f', after), '+inf', 'WITHSCORES', 'LIMIT', 0, limit)
local names, serials, changes = {}, {}, {}
for index = 1, #changed, 2 do
  names[#names + 1], serials[#serials + 1] = changed[index], tonumber(changed[index + 1])
end
after = serials[#serials] or after
if #names > 0 then
  for index, row in ipairs(redis.call('HMGET', ROWS, unpack(names))) do
    changes[#changes + 1] = names[index]
    changes[#changes + 1] = serials[index]
    changes[#changes + 1] = row or ''
  end
end
return {epoch, after, #names == limit and 1 or 0, anew, changes, redis.call('HGETALL', META)}
