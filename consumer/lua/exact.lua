-- Look uploads up by content alone.
--
--   ARGV  5.. a record without vector for each upload
--   out   for each upload: position and record, without the vector, of the earliest other picture of the same bytes; or ''

local found, stored = {}, false
for index = 5, #ARGV do
  local image_id, digest = parse(ARGV[index])
  local own, earlier, newest
  if epoch then
    own, earlier, newest = find(image_id, digest)
  end
  if earlier then
    -- Where the id was deleted lately, this may be an upload from before: better not stored.
    local fresh = redis.call('HEXISTS', DELETED, redis.sha1hex(image_id)) == 0
    if fresh and not own and ms_of(newest) < now_ms - grace_ms then
      local _, _, vector = parse(redis.call('HGET', ROWS, newest))
      store(ARGV[index] .. vector, redis.call('HGET', PATCHES, newest) or '')
      stored = true
    end
    found[#found + 1] = {earlier, head(redis.call('HGET', ROWS, earlier))}
  else
    found[#found + 1] = ''
  end
end
if stored then
  trim(TRIM_STEPS)
  save()
  keep_alive()
end
return found
