-- Tell what is known of pictures, by their image ids or by the ids of the verdicts on them.
--
--   ARGV  6.. for each picture `@` and its image id, or `!` and the id of a verdict on a duplicate
--   out   for each picture: image id; content hash or '' if it is not known; 1 if it was deleted lately; and of a
--         duplicate what was given to `join`; 1 if the picture itself is in the window

local replies = {}
for index = 6, #ARGV do
  local kind, image_id = string.match(ARGV[index], '^(.)(.*)$')
  if kind == '!' then
    image_id = redis.call('HGET', MEMBERS, ARGV[index]) or ''
  end
  local member, digest = read(MEMBERS, '@' .. image_id)
  local positions = list(IDS, image_id)
  if not member and #positions > 0 then
    digest = select(2, parse(redis.call('HGET', ROWS, positions[#positions])))
  end
  local known = {image_id, member and member.digest or digest or '', was_deleted(image_id) and 1 or 0}
  known[4] = member and member.details or ''
  known[5] = #positions > 0 and 1 or 0
  replies[#replies + 1] = known
end
return replies
