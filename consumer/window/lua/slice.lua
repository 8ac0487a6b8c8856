-- How far a slice is filled; put before each script that works on one.
--
--   KEYS  vectors  vector set: position -> vector
--         slice    hash: last -> serial of the newest row that was added; rows -> how many there are; begun -> when its
--                  first row was added, the last time that it was filled; position of a row that was deleted -> ''

local VECTORS, SLICE = KEYS[1], KEYS[2]

-- Whether both keys are there: a server short of memory may have evicted one.
local function is_whole()
  return redis.call('VCARD', VECTORS) == tonumber(redis.call('HGET', SLICE, 'rows') or 0)
end

-- The serial of the last row; 0 where there is none, or only a part of the slice.
local function last_row()
  return is_whole() and tonumber(redis.call('HGET', SLICE, 'last')) or 0
end

local function keep_alive(lifetime_ms)
  redis.call('PEXPIRE', VECTORS, lifetime_ms)
  redis.call('PEXPIRE', SLICE, lifetime_ms)
end
