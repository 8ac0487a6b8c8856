-- Find the exact copies of uploads, by their content alone.
--
--   ARGV  6.. a record without vector for each upload
--   out   for each upload: position and record, without the vector, of the earliest other picture of the same bytes, and
--         position, record and patches of its own record, if it has one; or ''

local found, stored = {}, false
for index = 6, #ARGV do
  local image_id, digest = parse(ARGV[index])
  local own, earlier, newest
  if epoch then
    own, earlier, newest = find(image_id, digest)
  end
  if earlier then
    -- Where the image id was deleted lately, this may be an upload from before that: it is better not stored.
    local fresh = not was_deleted(image_id)
    if fresh and not own and ms_of(newest) < now_ms - grace_ms then
      local _, _, vector = parse(redis.call('HGET', ROWS, newest))
      own = store(ARGV[index] .. vector, redis.call('HGET', PATCHES, newest) or '')
      stored = true
    end
    local match = {earlier, head(redis.call('HGET', ROWS, earlier))}
    if own then
      match[3], match[4], match[5] = own, redis.call('HGET', ROWS, own), redis.call('HGET', PATCHES, own) or ''
    end
    found[#found + 1] = match
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
