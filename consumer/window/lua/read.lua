-- Look pictures up, then read the log from a replica's cursor on. Writes nothing: a user of Redis may do it who may not
-- write.
--
--   ARGV  6 cursor  7 limit of entries read  8.. the content hash of each picture
--   out   as of `sync.lua`, with other outcomes: for each picture {the server's time in milliseconds, position or '' and
--         record without vector or '' of the earliest picture of the same bytes}

local outcomes = {}
for index = 8, #ARGV do
  local _, earlier
  if epoch then
    _, earlier = find('', ARGV[index])
  end
  outcomes[#outcomes + 1] = {now_ms, earlier or '', earlier and head(redis.call('HGET', ROWS, earlier)) or ''}
end
if not epoch then
  return {'', 0, '', '-', 0, outcomes, {}, {}}
end

local cursor, more, rows, gone = read_log(ARGV[6], tonumber(ARGV[7]))
return {epoch, serial, oldest_position(), cursor, more, outcomes, rows, gone}
