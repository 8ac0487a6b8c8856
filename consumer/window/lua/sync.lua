-- Append records, then read the log from a replica's cursor on.
--
--   ARGV  6 cursor  7 limit of entries read  8.. for each upload its record, its patches and its source
--   out   epoch, newest serial, oldest position, cursor, 1 if there is more to read,
--         for each upload {position or '', position of the exact copy or '', that copy's record without the vector,
--         1 if the upload itself is in the window},
--         positions and records of living rows after the cursor, one after the other,
--         positions deleted after the cursor

local outcomes = {}
local appends = (#ARGV - 7) / 3

if appends > 0 then
  ensure()
elseif not epoch then
  return {'', 0, '', '-', 0, outcomes, {}, {}}
end

-- First make room: a full server refuses a script whose first write needs memory.
trim(TRIM_STEPS + 2 * appends)

for index = 8, #ARGV, 3 do
  local record, patches, source = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  local image_id, digest = parse(record)
  local own, earlier, newest = find(image_id, digest)
  if earlier then
    if not own and ms_of(newest) < now_ms - grace_ms and not is_deleted(image_id, source, uploaded_us(record)) then
      own = store(record, patches)
    end
    outcomes[#outcomes + 1] = {own or '', earlier, head(redis.call('HGET', ROWS, earlier)), own and 1 or 0}
  else
    -- An upload deleted already is compared with what stands, but not stored again.
    local unwanted = not own and is_deleted(image_id, source, uploaded_us(record))
    own = own or unwanted and next_position() or store(record, patches)
    outcomes[#outcomes + 1] = {own, '', '', unwanted and 0 or 1}
  end
end

save()
if appends > 0 then
  keep_alive()
end

local cursor, more, rows, gone = read_log(ARGV[6], tonumber(ARGV[7]))
return {epoch, serial, oldest_position(), cursor, more, outcomes, rows, gone}
