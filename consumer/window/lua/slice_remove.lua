-- Remove rows from a slice, and rule out that they are added later, by a process that has been frozen meanwhile.
--
--   ARGV  1 ms to live  2.. positions

for index = 2, #ARGV do
  redis.call('HSET', SLICE, ARGV[index], '')
  redis.call('HINCRBY', SLICE, 'rows', -redis.call('VREM', VECTORS, ARGV[index]))
end
keep_alive(ARGV[1])
