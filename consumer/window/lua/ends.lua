-- Find the floods that are over, and forget those whose end was told.
--
--   ARGV  6 bound, in uploads an hour  7.. numbers of campaigns whose flood's end was told
--   out   for each flood that is over and was not told yet: number of the campaign, its image id, uploads an hour and ms
--         when that was found; the same ones again until they are told

if not epoch then
  return {}
end

local bound = tonumber(ARGV[6])
for index = 7, #ARGV do
  local campaign = campaign_of(ARGV[index])
  redis.call('ZREM', FLOODS, ARGV[index])
  if campaign and campaign.ended then
    campaign.flood, campaign.ended = nil, nil
    write(CAMPAIGNS, '#' .. ARGV[index], campaign)
  end
end

local over = {}
for _, number in ipairs(redis.call('ZRANGE', FLOODS, '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, LOOKS)) do
  local campaign = campaign_of(number)
  if not campaign then
    redis.call('ZREM', FLOODS, number)
  else
    -- Before the window of an idle tenant vanishes as a whole.
    if not campaign.ended and (rate_of(campaign) <= bound * OVER_SHARE or campaign.last < now_ms - retention_ms) then
      campaign.ended = {now_ms, rate_of(campaign)}
      write(CAMPAIGNS, '#' .. number, campaign)
    end
    if campaign.ended then
      over[#over + 1] = {number, campaign.id, campaign.ended[2], campaign.ended[1]}
    else
      redis.call('ZADD', FLOODS, now_ms + LOOK_MS, number)
    end
  end
end
return over
