-- Reserves with every rule that holds, or with none. Asked again for the same hold, it gives the same and takes nothing.
-- KEYS: what remembers that the hold was settled; then of each rule its counter and its holds.
-- ARGV: hold (id:nano-dollars), lease in ms, day, month, tokens, nano-dollars; then of each rule: requests and tokens a
-- minute, requests at once, nano-dollars a day and a month (0: any number), ms after which an idle counter is forgotten.
-- Gives 1 and of each rule what is left (requests, ms until all are there again; tokens, ms), or 0, the rule, what ran out
-- (as limit::Kind is numbered), which period's money it is about (0: a day, 1: a month) and ms to wait, or 2: it was settled.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hold, lease, day, month, tokens, spend = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
-- A unit in a bucket, in what drains of one unit a minute within a millisecond.
local UNIT = 60000

-- Whoever asked has given up waiting, and has taken back what this would reserve.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 2 }
end

-- Money of a period; that of an earlier one is over.
local function spent(counter, period, kind)
  local known = tonumber(redis.call('HGET', counter, kind) or '-1')
  if known < tonumber(period) then
    redis.call('HSET', counter, kind, period, kind .. '_spent', '0')
    return 0
  end
  return tonumber(redis.call('HGET', counter, kind .. '_spent') or '0')
end

local function add(counter, field, count)
  redis.call('HINCRBY', counter, field, string.format('%.0f', count))
end

local function level(counter, bucket, limit)
  local state = redis.call('HMGET', counter, bucket, bucket .. '_at')
  local at = tonumber(state[2] or now)
  return math.max(0, tonumber(state[1] or 0) - math.max(0, now - at) * limit)
end

local again = redis.call('ZSCORE', KEYS[3], hold)
local rules = {}
for i = 1, (#KEYS - 1) / 2 do
  local at = 6 + (i - 1) * 6
  local rule = {
    counter = KEYS[2 * i], holds = KEYS[2 * i + 1],
    requests = tonumber(ARGV[at + 1]), tokens = tonumber(ARGV[at + 2]), concurrent = tonumber(ARGV[at + 3]),
    day = tonumber(ARGV[at + 4]), month = tonumber(ARGV[at + 5]), ttl = ARGV[at + 6],
  }
  rule.money = rule.day > 0 or rule.month > 0
  local day_spent, month_spent = 0, 0
  if rule.money then
    day_spent, month_spent = spent(rule.counter, day, 'day'), spent(rule.counter, month, 'month')
    redis.call('PEXPIRE', rule.counter, rule.ttl)
  end
  -- Whoever died before it settled has spent what it reserved.
  for _, left in ipairs(redis.call('ZRANGEBYSCORE', rule.holds, '-inf', now, 'LIMIT', 0, 1000)) do
    redis.call('ZREM', rule.holds, left)
    if rule.money then
      local nano = tonumber(string.match(left, ':(%d+)$'))
      add(rule.counter, 'reserved', 0 - nano)
      add(rule.counter, 'day_spent', nano)
      add(rule.counter, 'month_spent', nano)
      day_spent, month_spent = day_spent + nano, month_spent + nano
      redis.call('ZADD', rule.holds .. ':lapsed', now, left)
      redis.call('PEXPIRE', rule.holds .. ':lapsed', rule.ttl)
    end
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
    if rule.money then
      add(rule.counter, 'reserved', spend)
    end
    redis.call('ZADD', rule.holds, now + lease, hold)
  end
  redis.call('PEXPIRE', rule.counter, rule.ttl)
  redis.call('PEXPIRE', rule.holds, rule.ttl)
end
return left
