-- Stage records for a recovery, under names of their own, until `restore` can put all of them in order.
--
--   ARGV  6.. for each record a name, its bytes and its patches
--   out   1, or 0 where there is a window already

if unconfirmed then
  epoch = false
end
if epoch and not rebuilding then
  return 0
end
if not epoch then
  ensure()
  redis.call('HSET', META, 'rebuilding', 1)
end
for index = 6, #ARGV, 3 do
  redis.call('HSET', ROWS, ARGV[index], ARGV[index + 1])
  if #ARGV[index + 2] > 0 then
    redis.call('HSET', PATCHES, ARGV[index], ARGV[index + 2])
  end
end
save()
keep_alive()
return 1
