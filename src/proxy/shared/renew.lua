-- KEYS: holds. ARGV: a hold (id:nano-dollars), lease in ms. By the server's clock, since those of gateways may differ.
local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2])
for _, holds in ipairs(KEYS) do
  redis.call('ZADD', holds, 'XX', until_ms, ARGV[1])
end
return 1
