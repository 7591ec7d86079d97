-- Puts what a request came to in the place of what it reserved, once; also for what reserved nothing.
-- KEYS: what remembers that it was done; then of each rule its counter and its holds.
-- ARGV: hold (id:nano-dollars), nano-dollars reserved, day, month, when they began in ms, tokens reserved, tokens and
-- nano-dollars it came to, ms for which it is remembered; then of each rule: tokens a minute (0: any number), whether it
-- counts money, ms after which an idle counter is forgotten.
if not redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[10]) then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hold, reserved, spend = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[9])
local periods = { day = { ARGV[3], tonumber(ARGV[5]) }, month = { ARGV[4], tonumber(ARGV[6]) } }
local UNIT = 60000

local function add(counter, field, count)
  redis.call('HINCRBY', counter, field, string.format('%.0f', count))
end

for i = 1, (#KEYS - 1) / 2 do
  local counter, holds = KEYS[2 * i], KEYS[2 * i + 1]
  local at = 10 + (i - 1) * 3
  local limit, money, ttl = tonumber(ARGV[at + 1]), ARGV[at + 2] == '1', ARGV[at + 3]
  local tokens, lapsed = tonumber(ARGV[8]), nil
  if redis.call('ZREM', holds, hold) == 1 then
    tokens = tokens - tonumber(ARGV[7])
    if money then
      add(counter, 'reserved', 0 - reserved)
    end
  elseif money then
    -- Its lease was over: what it reserved counts as spent, in the periods of that moment.
    local score = redis.call('ZSCORE', holds .. ':lapsed', hold)
    if score then
      lapsed = tonumber(score)
      redis.call('ZREM', holds .. ':lapsed', hold)
    end
  end
  if money then
    for kind, period in pairs(periods) do
      local known = tonumber(redis.call('HGET', counter, kind) or '-1')
      if known < tonumber(period[1]) then
        redis.call('HSET', counter, kind, period[1], kind .. '_spent', '0')
        known = tonumber(period[1])
      end
      if known == tonumber(period[1]) then
        add(counter, kind .. '_spent', (lapsed and lapsed >= period[2]) and (spend - reserved) or spend)
      end
    end
  end
  if limit > 0 then
    local state = redis.call('HMGET', counter, 'tokens', 'tokens_at')
    local drained = math.max(0, now - tonumber(state[2] or now)) * limit
    local level = math.max(0, math.max(0, tonumber(state[1] or 0) - drained) + tokens * UNIT)
    redis.call('HSET', counter, 'tokens', string.format('%.0f', level), 'tokens_at', now)
  end
  redis.call('PEXPIRE', counter, ttl)
end
return 1
