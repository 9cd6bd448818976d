"""The ledger's Lua scripts. Each is one atomic change of state.

Entries of both streams have two fields: `i`, the admission index, and `d`, the encoded message. Only
these scripts write `i`: an entry without it was not admitted by anybody, is acknowledged and counted
as `foreign`, and stays outside the accounts. What a task said when it was admitted is kept as a digest until
its group is durable or dropped, so that a rollout whose task says something else is known for a forgery.
"""

_FENCE = """
local fence = redis.call('GET', KEYS[1])
if not fence then return redis.error_reply('LOST no fence at ' .. KEYS[1]) end
if fence ~= ARGV[1] then return redis.error_reply('FENCED by learner start ' .. fence) end
"""

_INDEX_OF = """
local function index_of(stream, id)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if not entry then return nil end
  for k = 1, #entry[2], 2 do
    if entry[2][k] == 'i' then return entry[2][k + 1] end
  end
  return nil
end
"""

_COUNT_DROP = (
    _INDEX_OF
    + """
local function count_drop(stream, accounts, digests, id, reason)
  local index = index_of(stream, id)
  if not index then
    redis.call('HINCRBY', accounts, 'foreign', 1)
    return nil
  end
  redis.call('HINCRBY', accounts, 'dropped', 1)
  redis.call('HINCRBY', accounts, 'dropped:' .. reason, 1)
  redis.call('HDEL', digests, index)
  return index
end
"""
)

# KEYS fence advanced; ARGV fence, a word that nobody else says  -> the new one
ADVANCE = (
    """
local raised = tonumber(ARGV[1]) + 1
local this = raised .. ' ' .. ARGV[2]
if redis.call('GET', KEYS[1]) == tostring(raised) and redis.call('GET', KEYS[2]) == this then
  return raised  -- tried again: the first try's reply was lost
end
"""
    + _FENCE
    + """
redis.call('SET', KEYS[2], this)
return redis.call('INCR', KEYS[1])
"""
)

# KEYS fence tasks accounts trained digests; ARGV fence, capacity, first index, payloads...  -> number admitted.
# Indices of a later lineage begin at `first`.
ADMIT = (
    _FENCE
    + """
local function n(field) return tonumber(redis.call('HGET', KEYS[3], field) or '0') end
local admitted = n('admitted')
local next = n('first') + admitted
local ahead = next - tonumber(ARGV[3])
local this = ARGV[3] .. ' ' .. redis.sha1hex(ARGV[4] or '')
if ahead > 0 then
  if ahead <= #ARGV - 3 and redis.call('HGET', KEYS[3], 'last_admission') == this then
    return ahead  -- tried again: the first try's reply was lost
  end
  return redis.error_reply('TAKEN ' .. ARGV[3] .. ' by another admission; the next is ' .. next)
end
if ahead ~= 0 then
  return redis.error_reply('LOST ' .. next .. ' admitted where ' .. ARGV[3] .. ' were expected')
end
local open = admitted - n('durable') - n('dropped') - redis.call('HLEN', KEYS[4])
local room = math.min(tonumber(ARGV[2]) - open, #ARGV - 3)
for k = 1, room do
  redis.call('XADD', KEYS[2], '*', 'i', next + k - 1, 'd', ARGV[3 + k])
  redis.call('HSET', KEYS[5], next + k - 1, redis.sha1hex(ARGV[3 + k]))
end
if room > 0 then
  redis.call('HINCRBY', KEYS[3], 'admitted', room)
  redis.call('HSET', KEYS[3], 'last_admission', this)
end
return math.max(room, 0)
"""
)

# KEYS tasks; ARGV group, consumer, ids...  -> ids whose lease is still ours, renewed.
# JUSTID resets the idle time and leaves the delivery count alone.
RENEW = """
local held = {}
for k = 3, #ARGV do
  local p = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[k], ARGV[k], 1)[1]
  if p and p[2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[k], 'JUSTID')
    held[#held + 1] = ARGV[k]
  end
end
return held
"""

# KEYS tasks; ARGV group, consumer, idle ms, tries to forgive, ids...  Give leases back: claimable at once.
RELEASE = """
for k = 5, #ARGV do
  local p = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[k], ARGV[k], 1)[1]
  if p and p[2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[k],
               'IDLE', ARGV[3], 'RETRYCOUNT', math.max(p[4] - tonumber(ARGV[4]), 0), 'JUSTID')
  end
end
"""

# KEYS tasks rollouts; ARGV group, task entry id, index, payload  -> 1, or 0 where a twin was first
COMMIT = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
redis.call('XADD', KEYS[2], '*', 'i', ARGV[3], 'd', ARGV[4])
return 1
"""

# KEYS tasks accounts dead digests; ARGV group, task entry id, reason, detail, max entries of the dead stream
DEAD = (
    _COUNT_DROP
    + """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
local index = count_drop(KEYS[1], KEYS[2], KEYS[4], ARGV[2], ARGV[3])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*',
           'i', index or '', 'task', ARGV[2], 'reason', ARGV[3], 'detail', ARGV[4])
return 1
"""
)

# KEYS fence steps; ARGV fence, step, packed ids
RECORD = _FENCE + "redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])"

# KEYS fence rollouts trained; ARGV fence, group, step, ids...  -> how many were the learner's to train.
# What is acknowledged has left the accounts by another door (durable or dropped), and is not counted again.
TRAINED = (
    _FENCE
    + """
local counted = 0
for k = 4, #ARGV do
  if #redis.call('XPENDING', KEYS[2], ARGV[2], ARGV[k], ARGV[k], 1) == 1 then
    redis.call('HSET', KEYS[3], ARGV[k], ARGV[3])
    counted = counted + 1
  end
end
return counted
"""
)

# KEYS fence rollouts accounts trained digests; ARGV fence, group, ids...  -> number newly durable
DURABLE = (
    _FENCE
    + _INDEX_OF
    + """
local fresh = 0
for k = 3, #ARGV do
  if redis.call('XACK', KEYS[2], ARGV[2], ARGV[k]) == 1 then
    fresh = fresh + 1
    redis.call('HDEL', KEYS[5], index_of(KEYS[2], ARGV[k]) or '')
  end
  redis.call('HDEL', KEYS[4], ARGV[k])
end
redis.call('HINCRBY', KEYS[3], 'durable', fresh)
return fresh
"""
)

# KEYS fence rollouts accounts trained digests; ARGV fence, group, reason, ids...  What is trained can't be dropped.
DROP = (
    _FENCE
    + _COUNT_DROP
    + """
for k = 4, #ARGV do
  if redis.call('HEXISTS', KEYS[4], ARGV[k]) == 0 and redis.call('XACK', KEYS[2], ARGV[2], ARGV[k]) == 1 then
    count_drop(KEYS[2], KEYS[3], KEYS[5], ARGV[k], ARGV[3])
  end
end
"""
)

# KEYS fence rollouts accounts; ARGV fence, group, ids...  Second answers: their index is in the accounts by its first.
REFUSE = (
    _FENCE
    + """
for k = 3, #ARGV do
  if redis.call('XACK', KEYS[2], ARGV[2], ARGV[k]) == 1 then redis.call('HINCRBY', KEYS[3], 'foreign', 1) end
end
"""
)

# KEYS fence trained steps; ARGV fence, last durable step.  What came after it was undone by the crash.
REWIND = (
    _FENCE
    + """
local trained = redis.call('HGETALL', KEYS[2])
for k = 1, #trained, 2 do
  if tonumber(trained[k + 1]) > tonumber(ARGV[2]) then redis.call('HDEL', KEYS[2], trained[k]) end
end
"""
)

# KEYS stream; ARGV group  -> live entries that the ledger did not write: nobody has refused them yet
UNKNOWN = """
local n, last = 0, '-'
local function look(entries)
  for _, entry in ipairs(entries) do
    local ours = false
    for k = 1, #entry[2], 2 do
      if entry[2][k] == 'i' then ours = true end
    end
    if not ours then n = n + 1 end
  end
end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local named = {}
  for k = 1, #group, 2 do named[group[k]] = group[k + 1] end
  if named['name'] == ARGV[1] then last = '(' .. named['last-delivered-id'] end
end
for _, pending in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000000)) do
  look(redis.call('XRANGE', KEYS[1], pending[1], pending[1]))
end
look(redis.call('XRANGE', KEYS[1], last, '+'))
return n
"""

# KEYS stream; ARGV group.  Forget what every reader is done with: never an unread or pending entry.
TRIM = """
local oldest = redis.call('XPENDING', KEYS[1], ARGV[1])[2]
if not oldest then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    for k = 1, #group, 2 do
      if group[k] == 'last-delivered-id' then oldest = group[k + 1] end
    end
  end
end
if oldest then return redis.call('XTRIM', KEYS[1], 'MINID', oldest) end
return 0
"""

# KEYS owner; ARGV value, ms, dead  -> nothing, or who has it and for how many ms. Without a value it is only looked at.
HOLD = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then return {holder, redis.call('PTTL', KEYS[1])} end
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return {}
"""

# KEYS owner; ARGV value
LET_GO = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"
