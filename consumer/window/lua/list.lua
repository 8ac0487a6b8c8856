-- List campaigns, those with the newest uploads first.
--
--   ARGV  6 how many, at most
--   out   for each campaign: image id of its first picture, size, first ms, last ms, uploads an hour, 1 if in flood

local listed = {}
for _, number in ipairs(redis.call('ZRANGE', ACTIVITY, 0, tonumber(ARGV[6]) - 1, 'REV')) do
  local campaign = campaign_of(number)
  if campaign and campaign.last >= oldest_ms then
    listed[#listed + 1] = {
      campaign.id, campaign.size, campaign.first, campaign.last, rate_of(campaign), campaign.flood and 1 or 0,
    }
  end
end
return listed
