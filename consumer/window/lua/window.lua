-- One tenant's window for one model: the code that the scripts beside this file share. It is put before each of them.
--
--   log      stream; its order is the order of uploads. Entry `ms-serial` (a position): {row, ''}, {gone, position}
--            or {deleted, field of `deleted`}.
--            ms is the server's clock and never falls; serial counts up, over rows and tombstones alike.
--   rows     hash: position -> record. Not in the stream, because XDEL only marks an entry: its bytes stay in memory
--            and in snapshots until all entries of its node are gone, and a deleted picture has to be gone at once.
--   ids      hash: image id -> positions, in order, separated by spaces: one for each content uploaded under that id.
--            Also \255 and the image id of an object -> positions of its versions, `object?versionId=version`
--   digests  hash: content hash -> positions, in order
--   patches  hash: position -> local features and thumbnail, for pictures that have some
--   deleted  hash: SHA-1 of an image id -> partition, offset and position of its last deletion that told no time; with
--            `@` behind it, partition, offset, time and position of the latest one that did. A process that was frozen
--            with an upload in its hands may append it after others have carried out its deletion.
--   meta     hash: epoch, serial, ms, bytes; during a recovery also rebuilding, and how many entries are done; until a
--            window that was begun is confirmed also leave, the loss guard's marker by which it was begun
--   contents, campaigns, members, joins, activity, floods: see campaigns.lua
--   near     hash: position -> what was found near this upload when it came; of windows that are searched in slices
--   slices   hash: ms of a slice -> position up to which the log is in slices of so many ms; these ms and, behind a
--            space, the number of a slice -> serial of the last row there; claim -> who moves rows there, until which ms
--
-- A record is `uploaded_us:int64 digest_len:uint8 id_len:uint16` (big endian), then digest, image id and vector.
-- A record's position in both `ids` and `digests` makes its upload known: that is how an append is idempotent.

local LOG, ROWS, IDS, DIGESTS, PATCHES, DELETED, META, CONTENTS, CAMPAIGNS, MEMBERS, JOINS, ACTIVITY, FLOODS, NEAR, SLICES =
  unpack(KEYS)
local HEADER_BYTES = 11
-- Memory that the mark of a deletion is taken to need; an estimate.
local MARK_BYTES = 200
-- Contents remembered under one image id. An object overwritten for ever would make its list, and each append, longer.
local VERSIONS = 16
-- Records dropped by a script beside two for each that it appends: a backlog shrinks, and no script takes long.
local TRIM_STEPS = 64

local retention_ms, grace_ms, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
-- The epoch for a window that is begun here; and '1' if there has to be one already, '' if not, or else the loss
-- guard's marker by whose leave one may be begun.
local fresh_epoch, has_to_exist, leave = ARGV[4], ARGV[5] == '1', #ARGV[5] > 1 and ARGV[5]

local meta = redis.call('HMGET', META, 'epoch', 'serial', 'ms', 'bytes', 'rebuilding', 'leave')
local epoch, rebuilding, unconfirmed = meta[1], meta[5], meta[6]
local serial, now_ms, bytes = tonumber(meta[2] or 0), tonumber(meta[3] or 0), tonumber(meta[4] or 0)
-- A server short of memory may have evicted a part: what is left is of no use.
if epoch and not rebuilding and (redis.call('EXISTS', LOG) == 0 or redis.call('EXISTS', ROWS, IDS, DIGESTS) % 3 > 0) then
  epoch, now_ms = false, 0
end
local clock = redis.call('TIME')
now_ms = math.max(now_ms, clock[1] * 1000 + math.floor(clock[2] / 1000))
-- A record from before this no longer counts, whether it is trimmed already or not.
local oldest_ms = now_ms - retention_ms - grace_ms

-- A half recovered window belongs to the recovery that began it, which is known by its epoch.
if rebuilding and epoch ~= fresh_epoch then
  return {err = 'WINDOWREBUILDING the window is being rebuilt'}
end
if (not epoch or unconfirmed) and has_to_exist then
  return {err = 'WINDOWGONE the window is not there'}
end
if unconfirmed and leave then
  redis.call('HSET', META, 'leave', leave)
end

-- Begin anew where there is nothing, or only a part of something. A new epoch tells replicas to forget all they hold.
local function ensure()
  if not epoch then
    redis.call('DEL', unpack(KEYS))
    epoch, serial, bytes = fresh_epoch, 0, 0
    if leave then
      redis.call('HSET', META, 'leave', leave)
    end
  end
end

local function save()
  redis.call('HSET', META, 'epoch', epoch, 'serial', serial, 'ms', now_ms, 'bytes', bytes)
end

-- Windows of idle tenants vanish as a whole.
local function keep_alive()
  for _, key in ipairs(KEYS) do
    redis.call('PEXPIRE', key, retention_ms + grace_ms)
  end
end

local function ms_of(position)
  return tonumber(string.match(position, '^%d+'))
end

local function next_position()
  serial = serial + 1
  return string.format('%.0f-%.0f', now_ms, serial)
end

local function parse(record)
  local digest_end = HEADER_BYTES + record:byte(9)
  local id_end = digest_end + record:byte(10) * 256 + record:byte(11)
  return record:sub(digest_end + 1, id_end), record:sub(HEADER_BYTES + 1, digest_end), record:sub(id_end + 1)
end

-- A record without its vector: all that an exact match needs of it.
local function head(record)
  return record:sub(1, HEADER_BYTES + record:byte(9) + record:byte(10) * 256 + record:byte(11))
end

local function list(map, key)
  local positions = {}
  for position in string.gmatch(redis.call('HGET', map, key) or '', '%S+') do
    positions[#positions + 1] = position
  end
  return positions
end

-- Take a position off a list; true if it was the last one.
local function unlist(map, key, position)
  local kept = {}
  for _, other in ipairs(list(map, key)) do
    if other ~= position then
      kept[#kept + 1] = other
    end
  end
  if #kept == 0 then
    redis.call('HDEL', map, key)
  else
    redis.call('HSET', map, key, table.concat(kept, ' '))
  end
  return #kept == 0
end

-- The object that a picture is a version of, if it is one: only of the stores whose notifications name versions, since
-- any other address may have such a query.
local function object_of(image_id)
  return string.match(image_id, '^(s3://.+)%?versionId=.') or string.match(image_id, '^(gs://.+)%?versionId=.')
end

-- Where `ids` lists the versions of an object. No image id begins with this byte, since all are UTF-8.
local function versions_key(object)
  return '\255' .. object
end

-- When a picture was uploaded, in microseconds since 1970.
local function uploaded_us(record)
  return (struct.unpack('>i8', record))
end

-- When the deletion at `source` took place, in microseconds; nil if it does not tell.
local function deleted_us(source)
  return tonumber(string.match(source, '^%d+ %d+ (-?%d+)'))
end

-- All records that the deletion at `source` is about: of an image id, and of its versions if it is an object. Stores
-- do not keep the order of what they tell: a picture that was uploaded after the deletion stays.
local function records_of(image_id, source)
  local positions, time = {}, deleted_us(source)
  for _, key in ipairs({image_id, versions_key(image_id)}) do
    for _, position in ipairs(list(IDS, key)) do
      local record = time and redis.call('HGET', ROWS, position)
      if not record or uploaded_us(record) <= time then
        positions[#positions + 1] = position
      end
    end
  end
  return positions
end

local function cost(image_id, digest, record_bytes, patches_bytes)
  local names = #image_id + #(object_of(image_id) or '')
  return ROW_OVERHEAD_BYTES + record_bytes + names + #digest + patches_bytes + (patches_bytes > 0 and 80 or 0)
end

-- Remove a record from everything but the log.
local function erase(position)
  local record = redis.call('HGET', ROWS, position)
  if not record then
    return
  end
  local image_id, digest = parse(record)
  bytes = bytes - cost(image_id, digest, #record, redis.call('HSTRLEN', PATCHES, position))
  unlist(IDS, image_id, position)
  if object_of(image_id) then
    unlist(IDS, versions_key(object_of(image_id)), position)
  end
  if unlist(DIGESTS, digest, position) then
    redis.call('HDEL', CONTENTS, digest)
  end
  redis.call('HDEL', ROWS, position)
  redis.call('HDEL', PATCHES, position)
  redis.call('HDEL', NEAR, position)
end

-- Remove a record from everything, and tell the replicas.
local function forget(position)
  erase(position)
  redis.call('XDEL', LOG, position)
  redis.call('XADD', LOG, next_position(), 'gone', position)
end

-- Mark an image id as deleted by the event at `source`, a partition, an offset and perhaps a time. Of two deletions that
-- tell their times the later rules out all that the earlier does: if it came first its mark stays, and lives on.
local function mark(image_id, source)
  local position, time = next_position(), deleted_us(source)
  local name = redis.sha1hex(image_id) .. (time and '@' or '')
  local before = time and redis.call('HGET', DELETED, name)
  if before and deleted_us(before) > time then
    source = string.match(before, '^(.*) %S+$')
  end
  redis.call('XADD', LOG, position, 'deleted', name)
  redis.call('HSET', DELETED, name, source .. ' ' .. position)
  bytes = bytes + MARK_BYTES
end

local function unmark(name, position)
  bytes = bytes - MARK_BYTES
  if string.match(redis.call('HGET', DELETED, name) or '', '%S+$') == position then
    redis.call('HDEL', DELETED, name)
  end
end

-- The marks of an image id: of its last deletion that told no time, and of the latest that did; false for none.
local function marks_of(image_id)
  local name = redis.sha1hex(image_id)
  return unpack(redis.call('HMGET', DELETED, name, name .. '@'))
end

-- The mark of a deletion of this image id that the event at `source` comes before, or is again; false if there is none.
-- Events of one partition are in order. Of an upload and a deletion that both tell their time, that counts first.
local function mark_after(image_id, source, uploaded)
  local partition, offset = string.match(source, '^(%d+) (%d+)')
  local function is_after(mark)
    local deleted_in, deleted_at = string.match(mark, '^(%d+) (%d+) ')
    return partition == deleted_in and tonumber(offset) <= tonumber(deleted_at)
  end
  local undated, dated = marks_of(image_id)
  if not partition then
    return false
  elseif undated and is_after(undated) then
    return undated
  elseif dated and uploaded and uploaded ~= deleted_us(dated) then
    return uploaded < deleted_us(dated) and dated
  end
  return dated and is_after(dated) and dated
end

-- Whether the upload at `source` comes before a deletion of its image id, or of the object that it is a version of.
local function is_deleted(image_id, source, uploaded)
  local object = object_of(image_id)
  return mark_after(image_id, source, uploaded) or object and mark_after(object, source, uploaded) or false
end

-- Whether an image id, or its object, was deleted lately, by whichever event.
local function was_deleted(image_id)
  for _, name in ipairs({image_id, object_of(image_id)}) do
    local undated, dated = marks_of(name)
    if undated or dated then
      return true
    end
  end
  return false
end

-- Drop the oldest entries that are past their time or over the bound on memory, at most `steps` of them.
local function trim(steps)
  local last
  for _, entry in ipairs(redis.call('XRANGE', LOG, '-', '+', 'COUNT', steps)) do
    if ms_of(entry[1]) >= oldest_ms and bytes <= max_bytes then
      break
    end
    last = entry[1]
    erase(last)
    if entry[2][1] == 'deleted' then
      unmark(entry[2][2], last)
    end
  end
  if last then
    local ms, number = string.match(last, '^(%d+)-(%d+)$')
    redis.call('XTRIM', LOG, 'MINID', '=', string.format('%s-%.0f', ms, number + 1))
  end
end

-- List a record in `ids`; the oldest one under the same key makes room.
local function list_record(key, position)
  local positions = list(IDS, key)
  if #positions >= VERSIONS then
    forget(table.remove(positions, 1))
  end
  positions[#positions + 1] = position
  redis.call('HSET', IDS, key, table.concat(positions, ' '))
end

local function store(record, patches)
  local position = next_position()
  local image_id, digest = parse(record)
  redis.call('XADD', LOG, position, 'row', '')
  redis.call('HSET', ROWS, position, record)
  list_record(image_id, position)
  if object_of(image_id) then
    list_record(versions_key(object_of(image_id)), position)
  end
  local copies = list(DIGESTS, digest)
  copies[#copies + 1] = position
  redis.call('HSET', DIGESTS, digest, table.concat(copies, ' '))
  if #patches > 0 then
    redis.call('HSET', PATCHES, position, patches)
  end
  bytes = bytes + cost(image_id, digest, #record, #patches)
  return position
end

-- Find the position of this very upload, if it is known; of the earliest other picture of the same bytes in the window
-- before it; and of the newest picture of the same bytes.
local function find(image_id, digest)
  local under_id = {}
  for _, position in ipairs(list(IDS, image_id)) do
    under_id[position] = true
  end
  local copies = list(DIGESTS, digest)
  local own
  for _, position in ipairs(copies) do
    if under_id[position] and ms_of(position) >= oldest_ms then
      own = position
      break
    end
  end
  local from_ms = (own and ms_of(own) or now_ms) - retention_ms
  for _, position in ipairs(copies) do
    if position == own then
      break
    end
    if not under_id[position] and ms_of(position) >= from_ms then
      return own, position, copies[#copies]
    end
  end
  return own, nil, copies[#copies]
end

-- Read at most `limit` entries of the log after a replica's cursor. Returns the cursor after them, 1 if there is more to
-- read, positions and records of living rows, one after the other, and positions that were deleted. With `@` and the ms
-- of a slice for a cursor it returns the position up to which the log is in slices, and what to read is behind that.
local function read_log(cursor, limit)
  local slice_ms = string.match(cursor, '^@(%d+)$')
  if slice_ms then
    return redis.call('HGET', SLICES, slice_ms) or '-', 1, {}, {}
  end
  local entries = redis.call('XRANGE', LOG, cursor == '-' and '-' or '(' .. cursor, '+', 'COUNT', limit)
  local rows, gone, asked = {}, {}, {}
  for _, entry in ipairs(entries) do
    cursor = entry[1]
    if entry[2][1] == 'gone' then
      gone[#gone + 1] = entry[2][2]
    elseif entry[2][1] == 'row' then
      asked[#asked + 1] = cursor
    end
  end
  if #asked > 0 then
    for index, record in ipairs(redis.call('HMGET', ROWS, unpack(asked))) do
      if record then
        rows[#rows + 1] = asked[index]
        rows[#rows + 1] = record
      end
    end
  end
  return cursor, #entries == limit and 1 or 0, rows, gone
end

-- The first position in the log, or ''.
local function oldest_position()
  local oldest = redis.call('XRANGE', LOG, '-', '+', 'COUNT', 1)[1]
  return oldest and oldest[1] or ''
end
