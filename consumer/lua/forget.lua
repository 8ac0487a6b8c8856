-- Forget all that was seen under an image id.
--
--   ARGV  5 image id  6 source of the deletion, or ''
--   out   how many rows that were

if not epoch then
  return 0
end
local image_id, source = ARGV[5], ARGV[6]
-- A deletion that a frozen process carries out late, or a second time, takes nothing that came after it.
if is_deleted(image_id, source) then
  return 0
end
local positions = list(IDS, image_id)
for _, position in ipairs(positions) do
  forget(position)
end
if source ~= '' then
  trim(TRIM_STEPS)
  mark(image_id, source)
end
save()
keep_alive()
return #positions
