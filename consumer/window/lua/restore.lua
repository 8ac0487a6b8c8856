-- Put staged records into the window, and carry out deletions in between, in the order of their first positions.
--
--   ARGV  6 how many entries were restored before these  7 serial after which theirs come  8 '1' if they are the last
--         9.. for each entry its first ms, the name of a staged record or '', and of a deletion image id and source
--   out   how many records more there are

local first, last = tonumber(ARGV[6]), ARGV[8] == '1'
-- This call is sent a second time, since the first reply was lost on the way.
if not rebuilding or tonumber(redis.call('HGET', META, 'done') or 0) ~= first then
  return 0
end
serial = math.max(serial, tonumber(ARGV[7]))

local entries, added = (#ARGV - 8) / 4, 0
trim(TRIM_STEPS + 2 * entries)
for index = 9, #ARGV, 4 do
  now_ms = tonumber(ARGV[index])
  local name, image_id, source = ARGV[index + 1], ARGV[index + 2], ARGV[index + 3]
  if name ~= '' then
    local record, patches = redis.call('HGET', ROWS, name), redis.call('HGET', PATCHES, name)
    if not record then
      return {err = 'WINDOWGONE a row that was laid by is not there'}
    end
    redis.call('HDEL', ROWS, name)
    redis.call('HDEL', PATCHES, name)
    -- A repeated upload was published again.
    if not find(parse(record)) then
      store(record, patches or '')
      added = added + 1
    end
  elseif not mark_after(image_id, source) then
    for _, position in ipairs(records_of(image_id, source)) do
      erase(position)
      redis.call('XDEL', LOG, position)
      added = added - 1
    end
    if source ~= '' then
      mark(image_id, source)
    end
  end
end
redis.call('HSET', META, 'done', first + entries)
if last then
  redis.call('HDEL', META, 'rebuilding', 'done')
end
save()
keep_alive()
return added
