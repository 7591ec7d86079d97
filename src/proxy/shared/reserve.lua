-- Reserves with every rule that holds, or with none. Asked again for the same hold, it gives the same and takes nothing.
-- KEYS: of each rule its counter and its holds.
-- ARGV: hold (id:nano-dollars), lease in ms, day, month, tokens, nano-dollars; then of each rule: requests and tokens a
-- minute, requests at once, nano-dollars a day and a month (0: any number), ms after which an idle counter is forgotten.
-- Gives 1 and of each rule what is left (requests, ms until all are there again; tokens, ms), or 0, the rule, what ran out
-- (as limit::Kind is numbered), which period's money it is about (0: a day, 1: a month) and ms to wait.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hold, lease, day, month, tokens, spend = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
-- A unit in a bucket, in what drains of one unit a minute within a millisecond.
local UNIT = 60000

-- Money of a period; that of an earlier one is over.
local function spent(counter, period, kind)
  local known = tonumber(redis.call('HGET', counter, kind) or '-1')
  if known < tonumber(period) then
    redis.call('HSET', counter, kind, period, kind .. '_spent', '0')
    return 0
  end
  return tonumber(redis.call('HGET', counter, kind .. '_spent'))
end

local function level(counter, bucket, limit)
  local state = redis.call('HMGET', counter, bucket, bucket .. '_at')
  local at = tonumber(state[2] or now)
  return math.max(0, tonumber(state[1] or 0) - math.max(0, now - at) * limit)
end

local again = redis.call('ZSCORE', KEYS[2], hold)
local rules = {}
for i = 1, #KEYS / 2 do
  local at = 6 + (i - 1) * 6
  local rule = {
    counter = KEYS[2 * i - 1], holds = KEYS[2 * i],
    requests = tonumber(ARGV[at + 1]), tokens = tonumber(ARGV[at + 2]), concurrent = tonumber(ARGV[at + 3]),
    day = tonumber(ARGV[at + 4]), month = tonumber(ARGV[at + 5]), ttl = ARGV[at + 6],
  }
  local day_spent, month_spent = spent(rule.counter, day, 'day'), spent(rule.counter, month, 'month')
  -- Whoever died before it settled has spent what it reserved.
  for _, left in ipairs(redis.call('ZRANGEBYSCORE', rule.holds, '-inf', now, 'LIMIT', 0, 1000)) do
    local nano = string.match(left, ':(%d+)$')
    redis.call('ZREM', rule.holds, left)
    redis.call('HINCRBY', rule.counter, 'reserved', '-' .. nano)
    redis.call('HINCRBY', rule.counter, 'day_spent', nano)
    redis.call('HINCRBY', rule.counter, 'month_spent', nano)
    day_spent, month_spent = day_spent + tonumber(nano), month_spent + tonumber(nano)
  end
  if not again and rule.concurrent > 0 and redis.call('ZCARD', rule.holds) >= rule.concurrent then
    return { 0, i, 2, 0, 1000 }
  end
  for kind, bucket in ipairs({ 'requests', 'tokens' }) do
    local limit = rule[bucket]
    if limit > 0 then
      local count = kind == 1 and 1 or tokens
      rule[bucket .. '_level'] = level(rule.counter, bucket, limit)
      local over = rule[bucket .. '_level'] + math.min(count, limit) * UNIT - limit * UNIT
      if over > 0 and not again then
        return { 0, i, kind - 1, 0, math.ceil(over / limit) }
      end
    end
  end
  local reserved = tonumber(redis.call('HGET', rule.counter, 'reserved') or '0')
  for kind, money in ipairs({ { rule.day, day_spent }, { rule.month, month_spent } }) do
    local limit, used = money[1], money[2]
    local function fits(taken) return taken < limit and taken + spend <= limit end
    if limit > 0 and not again and not fits(used + reserved) then
      return { 0, i, fits(used) and 5 or 2 + kind, kind - 1, 1000 }
    end
  end
  rules[i] = rule
end

local left = { 1 }
for _, rule in ipairs(rules) do
  for _, bucket in ipairs({ 'requests', 'tokens' }) do
    local limit = rule[bucket]
    if limit > 0 then
      local count = again and 0 or bucket == 'requests' and 1 or tokens
      local full = rule[bucket .. '_level'] + count * UNIT
      redis.call('HSET', rule.counter, bucket, string.format('%.0f', full), bucket .. '_at', now)
      table.insert(left, math.floor(math.max(0, limit * UNIT - full) / UNIT))
      table.insert(left, math.ceil(full / limit))
    else
      table.insert(left, 0)
      table.insert(left, 0)
    end
  end
  if not again then
    redis.call('HINCRBY', rule.counter, 'reserved', ARGV[6])
    redis.call('ZADD', rule.holds, now + lease, hold)
  end
  redis.call('PEXPIRE', rule.counter, rule.ttl)
  redis.call('PEXPIRE', rule.holds, rule.ttl)
end
return left
