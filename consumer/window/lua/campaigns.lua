-- One tenant's campaigns: uploads that show the same picture, one of them the first. Put behind window.lua, before the
-- scripts that work on campaigns.
--
--   contents   hash: content hash of a picture in the window -> number of the campaign that its copies are in
--   campaigns  hash: `#` and a number -> record of the campaign; `@` and an image id -> number of the campaign that this
--              picture is the first of
--   members    hash: `@` and an image id -> record of a duplicate; `!` and the id of its verdict -> its image id;
--              \255 and the image id of an object -> which of its versions stand in `members` or `campaigns`
--   joins      sorted set: image id of a member -> ms when it joined
--   activity   sorted set: number of a campaign -> ms when its last member joined
--   floods     sorted set: number of a campaign in flood -> ms when to look whether that is over: see ends.lua
--
-- Numbers are serials of the window. Records are MessagePack. A member's record holds the answer that it was given, so
-- that a repeat gets the same one, and no image id but its own: a picture that is deleted is nowhere else.

-- What a member takes in Redis 7.0 with names of 36 characters; Valkey 9 needs 140 less. All of a tenant's take no more than this share of the bound on the window.
local MEMBER_BYTES, MEMBERS_SHARE = 700, 1 / 16
local max_members = math.max(1000, math.floor(max_bytes * MEMBERS_SHARE / MEMBER_BYTES))
-- A rate is what came in so many minutes, counted by the minute.
local RATE_MINUTES, MINUTE_MS = 60, 60000
-- A flood is over when the rate has fallen to this share of the bound. It is looked at this often, so many at a time.
local OVER_SHARE, LOOK_MS, LOOKS = 0.5, 10000, 16

local function read(map, field)
  local packed = redis.call('HGET', map, field)
  return packed and cmsgpack.unpack(packed)
end

local function write(map, field, record)
  redis.call('HSET', map, field, cmsgpack.pack(record))
end

local function campaign_of(number)
  return number and read(CAMPAIGNS, '#' .. number)
end

local function minute_of(ms)
  return math.floor(ms / MINUTE_MS)
end

-- Count an upload at a time; `minutes` holds a minute and the uploads in it, one after the other, the oldest first.
local function count(campaign, ms)
  local minutes, minute = campaign.minutes, minute_of(ms)
  while minutes[1] and minutes[1] <= minute_of(now_ms) - RATE_MINUTES do
    table.remove(minutes, 1)
    table.remove(minutes, 1)
  end
  if minutes[#minutes - 1] == minute then
    minutes[#minutes] = minutes[#minutes] + 1
  else
    minutes[#minutes + 1], minutes[#minutes + 2] = minute, 1
  end
end

local function rate_of(campaign)
  local minutes, uploads = campaign.minutes, 0
  for index = 1, #minutes, 2 do
    if minutes[index] > minute_of(now_ms) - RATE_MINUTES then
      uploads = uploads + minutes[index + 1]
    end
  end
  return uploads
end

local function versions_of(object)
  return read(MEMBERS, versions_key(object)) or {}
end

local function forget_version(image_id)
  local object = object_of(image_id)
  if not object or redis.call('HGET', MEMBERS, '@' .. image_id) or redis.call('HGET', CAMPAIGNS, '@' .. image_id) then
    return
  end
  local kept = {}
  for _, version in ipairs(versions_of(object)) do
    if version ~= image_id then
      kept[#kept + 1] = version
    end
  end
  if #kept == 0 then
    redis.call('HDEL', MEMBERS, versions_key(object))
  else
    write(MEMBERS, versions_key(object), kept)
  end
end

local function forget_member(image_id)
  local member = read(MEMBERS, '@' .. image_id)
  redis.call('ZREM', JOINS, image_id)
  if member then
    redis.call('HDEL', MEMBERS, '@' .. image_id, '!' .. member.verdict)
    forget_version(image_id)
  end
  return member
end

local function forget_campaign(number)
  local campaign = campaign_of(number)
  redis.call('ZREM', ACTIVITY, number)
  redis.call('ZREM', FLOODS, number)
  if campaign then
    redis.call('HDEL', CAMPAIGNS, '#' .. number)
    if redis.call('HGET', CAMPAIGNS, '@' .. campaign.id) == number then
      redis.call('HDEL', CAMPAIGNS, '@' .. campaign.id)
      forget_version(campaign.id)
    end
  end
end

-- Remember a version of an object, so that a deletion of the object finds it; the oldest one makes room.
local function keep_version(image_id)
  local object = object_of(image_id)
  if not object then
    return
  end
  local versions = versions_of(object)
  for _, version in ipairs(versions) do
    if version == image_id then
      return
    end
  end
  versions[#versions + 1] = image_id
  write(MEMBERS, versions_key(object), versions)
  if #versions > VERSIONS then
    forget_member(versions[1])
    forget_campaign(redis.call('HGET', CAMPAIGNS, '@' .. versions[1]) or '')
  end
end

-- Forget what campaigns know of a picture, and of its versions if it is an object, that were uploaded until a time.
local function forget_in_campaigns(image_id, time)
  local names = versions_of(image_id)
  names[#names + 1] = image_id
  for _, name in ipairs(names) do
    local number = redis.call('HGET', CAMPAIGNS, '@' .. name)
    local begun, member = campaign_of(number), read(MEMBERS, '@' .. name)
    if begun and (not time or begun.uploaded <= time) then
      forget_campaign(number)
    end
    if member and (not time or member.uploaded <= time) then
      forget_member(name)
      local campaign = campaign_of(member.number)
      if campaign then
        campaign.size = campaign.size - 1
        write(CAMPAIGNS, '#' .. member.number, campaign)
      end
    end
  end
end

-- Forget the oldest of a sorted set that are past their time or too many, at most `steps` of them.
local function trim_sorted(sorted, steps, forget_one, may_expire)
  local excess = redis.call('ZCARD', sorted) - max_members
  for step = 1, steps do
    local oldest = redis.call('ZRANGE', sorted, 0, 0, 'WITHSCORES')
    local expired = oldest[1] and tonumber(oldest[2]) < oldest_ms and may_expire(oldest[1])
    if not expired and step > excess then
      break
    end
    forget_one(oldest[1])
  end
end

local function trim_campaigns(steps)
  trim_sorted(JOINS, steps, forget_member, function() return true end)
  -- The end of a flood is told first.
  trim_sorted(ACTIVITY, steps, forget_campaign, function(number)
    local campaign = campaign_of(number)
    return not (campaign and campaign.flood)
  end)
end
