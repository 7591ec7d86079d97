-- Puts what a request came to in the place of what it reserved, once; also for what reserved nothing.
-- KEYS: what remembers that it was done; then of each rule its counter and its holds.
-- ARGV: hold (id:nano-dollars), nano-dollars reserved, day, month, tokens reserved, tokens and nano-dollars it came to, ms
-- for which it is remembered, whether it was reserved for certain (1) or perhaps (0); then of each rule: tokens a minute
-- (0: any number), ms after which an idle counter is forgotten.
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[8]) then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hold, reserved, spend = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[7])
local UNIT = 60000

for i = 1, (#KEYS - 1) / 2 do
  local counter, holds = KEYS[2 * i], KEYS[2 * i + 1]
  local limit, ttl = tonumber(ARGV[8 + 2 * i]), ARGV[9 + 2 * i]
  local more, tokens = spend, tonumber(ARGV[6])
  if redis.call('ZREM', holds, hold) == 1 then
    redis.call('HINCRBY', counter, 'reserved', '-' .. ARGV[2])
    tokens = tokens - tonumber(ARGV[5])
  elseif ARGV[9] == '1' then
    -- Its lease was over, and what it reserved counts as spent.
    more = spend - reserved
    tokens = tokens - tonumber(ARGV[5])
  end
  for kind, period in pairs({ day = ARGV[3], month = ARGV[4] }) do
    local known = tonumber(redis.call('HGET', counter, kind) or '-1')
    if known < tonumber(period) then
      redis.call('HSET', counter, kind, period, kind .. '_spent', '0')
      known = tonumber(period)
    end
    if known == tonumber(period) then
      redis.call('HINCRBY', counter, kind .. '_spent', string.format('%.0f', more))
    end
  end
  if limit > 0 then
    local state = redis.call('HMGET', counter, 'tokens', 'tokens_at')
    local drained = math.max(0, now - tonumber(state[2] or now)) * limit
    local level = math.max(0, tonumber(state[1] or 0) - drained)
    level = math.max(0, level + tokens * UNIT)
    redis.call('HSET', counter, 'tokens', string.format('%.0f', level), 'tokens_at', now)
  end
  redis.call('PEXPIRE', counter, ttl)
end
return 1
