-- Put duplicates into campaigns, count them, and tell when a campaign's rate goes beyond a bound; see also ends.lua.
--
--   ARGV  6 bound, in uploads an hour  7.. for each duplicate: its record without vector, its source, the id of its
--         verdict; positions of the pictures that it was directly verified with, the earliest first; positions of those
--         with which it was not; answers to earlier questions, `number:1` or `number:0`; '1' if every campaign is in
--         question for it; and what `member` is to give back of it
--   out   for each duplicate '' if its matches are gone, or a question {0, number, position, image id and content hash
--         of the campaign's first picture, 1 if the duplicate has the bytes of a member} whether it may join,
--         or {1, image id of the first picture, size, first ms, last ms, uploads an hour, and of each flood that it
--         tells: image id, state, uploads an hour, bound, ms}
--
-- A duplicate joins the campaign of the earliest picture that it was verified with. That one may be there as a copy of
-- another, the first; the duplicate is a member only if it has been verified with the first too, or has the bytes of a
-- member. If not, the picture that it was verified with is the first of a campaign of its own.

local bound = tonumber(ARGV[6])

local function has(list, word)
  return string.find(' ' .. list .. ' ', ' ' .. word .. ' ', 1, true)
end

-- Whether a duplicate may join a campaign, or else the question that has to be answered first.
local function may_join(duplicate, number, campaign, same_bytes)
  if same_bytes and not duplicate.in_question or has(duplicate.answers, number .. ':1') then
    return true
  elseif has(duplicate.answers, number .. ':0') then
    return false
  elseif not same_bytes then
    if has(duplicate.unverified, campaign.position) or not redis.call('HGET', ROWS, campaign.position) then
      return false
    elseif has(duplicate.matches, campaign.position) and not duplicate.in_question then
      return true
    end
  end
  return false, {0, number, campaign.position, campaign.id, campaign.digest, same_bytes and 1 or 0}
end

local function begin(position, record)
  local image_id, digest = parse(record)
  forget_campaign(redis.call('HGET', CAMPAIGNS, '@' .. image_id) or '')
  serial = serial + 1
  local number, ms = string.format('%.0f', serial), ms_of(position)
  local campaign = {
    id = image_id, digest = digest, position = position, uploaded = uploaded_us(record),
    size = 1, first = ms, last = ms, minutes = {},
  }
  count(campaign, ms)
  write(CAMPAIGNS, '#' .. number, campaign)
  redis.call('HSET', CAMPAIGNS, '@' .. image_id, number)
  redis.call('ZADD', ACTIVITY, ms, number)
  keep_version(image_id)
  if not campaign_of(redis.call('HGET', CONTENTS, digest)) then
    redis.call('HSET', CONTENTS, digest, number)
  end
  return number, campaign
end

-- Whether a campaign began with the duplicate itself: a copy of it was decided before it was, by another process.
local function began_with(campaign, duplicate)
  return campaign and campaign.id == duplicate.image_id and campaign.digest == duplicate.digest
end

-- The campaign that a duplicate joins: its number and record; or false and perhaps a question.
local function choose(duplicate)
  local number = redis.call('HGET', CONTENTS, duplicate.digest)
  local campaign = campaign_of(number)
  if campaign and not began_with(campaign, duplicate) then
    local may, question = may_join(duplicate, number, campaign, true)
    if may or question then
      return may and number, may and campaign or question
    end
  end
  local first, record
  for position in string.gmatch(duplicate.matches, '%S+') do
    first, record = position, redis.call('HGET', ROWS, position)
    if record then
      break
    end
  end
  if not record then
    return false
  end
  local image_id, digest = parse(record)
  number = redis.call('HGET', CONTENTS, digest)
  campaign = campaign_of(number)
  if campaign and campaign.digest ~= digest then
    local may, question = may_join(duplicate, number, campaign, digest == duplicate.digest)
    if may or question then
      return may and number, may and campaign or question
    end
  elseif campaign then
    return number, campaign
  end
  number = redis.call('HGET', CAMPAIGNS, '@' .. image_id)
  campaign = campaign_of(number)
  if campaign and campaign.digest == digest then
    return number, campaign
  end
  return begin(first, record)
end

-- The flood that begins with this duplicate, if one does: number of the campaign, state, uploads an hour and ms.
local function tell(number, campaign)
  local told, rate = {}, rate_of(campaign)
  if rate > bound and not campaign.flood then
    campaign.flood = now_ms
    told[1] = {number, 'began', rate, now_ms}
    redis.call('ZADD', FLOODS, now_ms + LOOK_MS, number)
  end
  write(CAMPAIGNS, '#' .. number, campaign)
  return told
end

local function join(duplicate, number, campaign)
  if is_deleted(duplicate.image_id, duplicate.source, duplicate.uploaded) then
    return {number = number, size = campaign.size, first = campaign.first, last = campaign.last,
            rate = rate_of(campaign), told = {}}
  end
  campaign.size, campaign.last = campaign.size + 1, now_ms
  count(campaign, now_ms)
  redis.call('ZADD', ACTIVITY, now_ms, number)
  -- Only of pictures in the window: there is one content for each of them.
  local of_content = campaign_of(redis.call('HGET', CONTENTS, duplicate.digest))
  if redis.call('HGET', DIGESTS, duplicate.digest) and (not of_content or began_with(of_content, duplicate)) then
    redis.call('HSET', CONTENTS, duplicate.digest, number)
  end
  local member = {
    number = number, digest = duplicate.digest, uploaded = duplicate.uploaded, verdict = duplicate.verdict,
    details = duplicate.details, size = campaign.size, first = campaign.first, last = now_ms, rate = rate_of(campaign),
    bound = bound, told = tell(number, campaign),
  }
  forget_member(duplicate.image_id)
  write(MEMBERS, '@' .. duplicate.image_id, member)
  redis.call('HSET', MEMBERS, '!' .. duplicate.verdict, duplicate.image_id)
  redis.call('ZADD', JOINS, now_ms, duplicate.image_id)
  keep_version(duplicate.image_id)
  return member
end

local function reply_of(member)
  local campaign = campaign_of(member.number)
  local reply = {1, campaign.id, member.size, member.first, member.last, member.rate}
  for _, flood in ipairs(member.told) do
    local flooded = campaign_of(flood[1])
    if flooded then
      for _, part in ipairs({flooded.id, flood[2], flood[3], tostring(member.bound), flood[4]}) do
        reply[#reply + 1] = part
      end
    end
  end
  return reply
end

ensure()
local replies = {}
for index = 7, #ARGV, 8 do
  local image_id, digest = parse(ARGV[index])
  local duplicate = {
    image_id = image_id, digest = digest, uploaded = uploaded_us(ARGV[index]), source = ARGV[index + 1],
    verdict = ARGV[index + 2], matches = ARGV[index + 3], unverified = ARGV[index + 4], answers = ARGV[index + 5],
    in_question = ARGV[index + 6] == '1', details = ARGV[index + 7],
  }
  local member = read(MEMBERS, '@' .. image_id)
  if member and member.digest == digest and campaign_of(member.number) then
    replies[#replies + 1] = reply_of(member)
  else
    local number, campaign = choose(duplicate)
    replies[#replies + 1] = number and reply_of(join(duplicate, number, campaign)) or campaign or ''
  end
end
trim_campaigns(TRIM_STEPS + #replies)
save()
keep_alive()
return replies
