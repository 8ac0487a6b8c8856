-- Delete all records of an image id, and of its versions if it is an object.
--
--   ARGV  6 image id  7 source of the deletion, or ''
--   out   how many records were deleted, and the position at or before which all of them stood

local function at()
  return string.format('%.0f-%.0f', now_ms, serial)
end

if not epoch then
  return {0, at()}
end
local image_id, source = ARGV[6], ARGV[7]
-- A deletion that a frozen process carries out late, or a second time, deletes nothing that came after it.
local done = mark_after(image_id, source)
if done then
  return {0, string.match(done, '%S+$')}
end
local positions = records_of(image_id, source)
forget_in_campaigns(image_id, deleted_us(source))
for _, position in ipairs(positions) do
  forget_in_campaigns((parse(redis.call('HGET', ROWS, position))), deleted_us(source))
  forget(position)
end
if source ~= '' then
  trim(TRIM_STEPS)
  mark(image_id, source)
end
save()
keep_alive()
return {#positions, at()}
