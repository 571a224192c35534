"""What `rtb.domain.book` means, as Lua scripts on one hash a campaign; one contract suite holds the two together.

KEYS[1] is the book, ``budget:{campaign id}``, with these fields (``|`` joins their parts):

    e r c o k f D     epoch, run id of the server it was made on, closed, opens at, asks for what expires until, floor,
                      days (``life`` among them) joined by commas
    w|i  q|i  n|i     instance i is waited for; its last sequence number; when it last synced
    l|d p|d a|d s|d v|d h|d x|d   of day d: limit, cap, available, spent, version, peak, older limits (nanos:until;)
    L|d|i B|d|i U|d|i   what instance i has leased of day d; its holds that are billed; those not settled of them
    K|b               there are bill keys of bucket b

Beside it, in the same hash slot, named after the epoch so that a rebuilt book never sees an older one's:

    ...:k:<epoch>:<bucket>     bill keys: ``o123`` charged 123 and open, ``c123`` committed; ``#`` counts the open ones,
                               ``@`` is when the last one was committed
    ...:s:<epoch>:<instance>   settled holds: day|bucket -> nanos

A book that was made on another server process counts as missing: what a restart or a failover brings back may be old.
Numbers are doubles, exact up to 9 * 10**15, intermediate results too, and written with %d only.
"""

from __future__ import annotations

from typing import NamedTuple

from rtb.adapters.redis_scripts import Script, script

_PRELUDE = """
local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local book, changed, removed = {}, {}, {}
local raw = redis.call('HGETALL', key)
for at = 1, #raw, 2 do book[raw[at]] = raw[at + 1] end
local at = 0
local function arg() at = at + 1; return ARGV[at] end
local function argn() return tonumber(arg()) end
local function int(value) return string.format('%d', value) end
local function num(field) return tonumber(book[field] or 0) end
local function set(field, value)
  if type(value) == 'number' then value = int(value) end
  if book[field] ~= value then book[field], changed[field], removed[field] = value, value, nil end
end
local function del(field)
  if book[field] then book[field], changed[field], removed[field] = nil, nil, true end
end
local function save()
  for field, value in pairs(changed) do redis.call('HSET', key, field, value) end
  for field in pairs(removed) do redis.call('HDEL', key, field) end
end
local function days()
  local found = {}
  for day in string.gmatch(book.D or '', '[^,]+') do found[#found + 1] = day end
  return found
end
local function each(prefix)
  local found = {}
  for field in pairs(book) do
    if string.sub(field, 1, 2) == prefix then found[#found + 1] = string.sub(field, 3) end
  end
  return found
end
local function has(day) return book['l|' .. day] ~= nil end
local function keys_of(bucket) return key .. ':k:' .. book.e .. ':' .. bucket end
local function settled_of(instance) return key .. ':s:' .. book.e .. ':' .. instance end
local function open_account(day, limit, cap, spent, version)
  set('l|' .. day, limit); set('p|' .. day, cap); set('a|' .. day, limit - spent); set('s|' .. day, spent)
  set('v|' .. day, version); set('h|' .. day, math.max(limit, spent))
  set('D', (book.D and book.D ~= '') and (book.D .. ',' .. day) or day)
end
local function put(day, instance, nanos)
  local field = 'L|' .. day .. '|' .. instance
  set('a|' .. day, num('a|' .. day) - (nanos - num(field)))
  set(field, nanos)
end
local function open_book()
  if book.c ~= '1' then return end
  local waiting = each('w|')
  if #waiting > 0 and now < num('o') then return end
  for _, instance in ipairs(waiting) do
    set('n|' .. instance, now)
    for _, day in ipairs(days()) do put(day, instance, num('p|' .. day)) end
    del('w|' .. instance)
  end
  set('c', 0)
end
"""

_IDENTITY = script("return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')")

# ARGV: run id, epoch, version, floor, grace, how long to ask for (0: nothing can have been billed), the number of
# accounts, for each day limit cap spent; then the instances to wait for. Returns 1; 0 when a newer book is there; -1 on
# another server.
_INSTALL = script(
    _PRELUDE
    + """
if arg() ~= run then return -1 end
local epoch = argn()
if book.r == run and num('e') >= epoch then return 0 end
redis.call('DEL', key)
book, changed, removed = {}, {}, {}
set('e', epoch); set('r', run); set('c', 1)
local version = argn()
set('f', arg())
set('o', now + argn())
local ask = argn()
set('k', ask == 0 and 0 or now + ask)
for _ = 1, argn() do
  local day, limit, cap, spent = arg(), argn(), argn(), argn()
  open_account(day, limit, cap, spent, version)
end
while at < #ARGV do set('w|' .. arg(), 1) end
open_book()
save()
return 1
"""
)

# ARGV: how long a lease, settling, a bucket of keys, a key, a forgotten instance and an unused book last; the days
# kept; instance, seq, epoch, version, announce; the number of limits, for each day limit cap; of moves, for each day
# nanos.
# Returns status, epoch, time, and for each day asked about that is there: day, limit, available, spent, leased,
# unsettled, the number of settled buckets, and for each its end and nanos.
_SYNC = script(
    _PRELUDE
    + """
if book.r ~= run then return {'missing', 0, now} end
local lease, settle, bucket_ms, life, forget, keep, most = argn(), argn(), argn(), argn(), argn(), argn(), argn()
local instance, seq, epoch, version, announce = arg(), argn(), argn(), argn(), arg() == '1'
local current = num('e')
if seq <= num('q|' .. instance) then return {'old', current, now} end
set('q|' .. instance, seq)

local function release(gone)
  for _, day in ipairs(days()) do
    local field = 'L|' .. day .. '|' .. gone
    if book[field] then
      set('a|' .. day, num('a|' .. day) + num(field))
      del(field)
    end
    del('B|' .. day .. '|' .. gone)
    del('U|' .. day .. '|' .. gone)
  end
  redis.call('DEL', settled_of(gone))
end
local function expire()
  if book.c == '1' then return end
  for _, other in ipairs(each('n|')) do
    local renewed = num('n|' .. other)
    if now > renewed + lease then release(other) end
    if now > renewed + lease + forget then del('n|' .. other); del('q|' .. other) end
  end
end
local function set_limit(day, limit, cap)
  if version <= num('v|' .. day) then return end
  local before = num('l|' .. day)
  set('v|' .. day, version)
  if limit ~= before then
    set('x|' .. day, (book['x|' .. day] or '') .. int(before) .. ':' .. int(now + lease) .. ';')
  end
  set('a|' .. day, num('a|' .. day) + (limit - before))
  set('l|' .. day, limit); set('p|' .. day, cap)
  set('h|' .. day, math.max(num('h|' .. day), limit))
end
local function prune()
  local dated, kept = {}, {}
  for _, day in ipairs(days()) do
    if day == 'life' then kept[#kept + 1] = day else dated[#dated + 1] = day end
  end
  table.sort(dated)
  for index, day in ipairs(dated) do
    if index <= #dated - most then
      for field in pairs(book) do
        if string.sub(field, 2, 2 + #day) == '|' .. day then del(field) end
      end
      if day > book.f then set('f', day) end
    else
      kept[#kept + 1] = day
    end
  end
  set('D', table.concat(kept, ','))
end

expire()
if epoch ~= current and (announce or epoch ~= 0) then save(); return {'epoch', current, now} end
local with_life = false
for _ = 1, argn() do
  local day, limit, cap = arg(), argn(), argn()
  if day == 'life' then with_life = true end
  if has(day) then
    set_limit(day, limit, cap)
  elseif day == 'life' then
    save()
    return {'missing', current, now}
  elseif day > book.f then
    open_account(day, limit, cap, 0, version)
    prune()
  end
end
if has('life') and not with_life then set_limit('life', 9000000000000000, 9000000000000000) end
local moves, order = {}, {}
for _ = 1, argn() do
  local day = arg()
  moves[day] = argn()
  order[#order + 1] = day
end
if announce then
  for _, day in ipairs(days()) do
    local mine = day .. '|' .. instance
    if book.c == '1' or book['L|' .. mine] then
      put(day, instance, math.max(0, (moves[day] or 0) - num('B|' .. mine)))
    end
  end
  del('w|' .. instance)
elseif epoch == 0 then
  release(instance)
  del('w|' .. instance)
end
open_book()
if book.c == '1' and not announce then save(); return {'closed', current, now} end
set('n|' .. instance, now)
if not announce then
  for _, day in ipairs(order) do
    if has(day) then
      local nanos, have, available = moves[day], num('L|' .. day .. '|' .. instance), num('a|' .. day)
      local moved
      if nanos > 0 then
        moved = math.max(0, math.min(nanos, available, num('p|' .. day) - have))
      else
        moved = -math.min(-nanos, have)
      end
      set('L|' .. day .. '|' .. instance, have + moved)
      set('a|' .. day, available - moved)
    end
  end
end
local reply, settled = {'ok', current, now}, {}
local raw = redis.call('HGETALL', settled_of(instance))
for index = 1, #raw, 2 do
  local day, bucket = string.match(raw[index], '^([^|]+)|(%d+)$')
  if tonumber(bucket) * 1000 + settle < now then
    redis.call('HDEL', settled_of(instance), raw[index])
  else
    settled[day] = settled[day] or {}
    table.insert(settled[day], tonumber(bucket))
    table.insert(settled[day], tonumber(raw[index + 1]))
  end
end
for _, day in ipairs(order) do
  if has(day) then
    local told = settled[day] or {}
    local mine = day .. '|' .. instance
    for _, value in ipairs({day, num('l|' .. day), num('a|' .. day), num('s|' .. day), num('L|' .. mine),
                            num('U|' .. mine), #told / 2}) do
      reply[#reply + 1] = value
    end
    for _, value in ipairs(told) do reply[#reply + 1] = value end
  end
end
for _, bucket in ipairs(each('K|')) do
  if (tonumber(bucket) + 1) * bucket_ms + life < now and redis.call('EXISTS', keys_of(bucket)) == 0 then
    del('K|' .. bucket)
  end
end
save()
redis.call('PEXPIRE', key, int(keep))
return reply
"""
)

# ARGV: how long a bucket of keys, a key and settling last; then for each bill: key, day, instance, price, held,
# expires, asked.
# Returns 0 without a book; else epoch, time, and for each bill: status, charged, the number of accounts, and for each
# day, spent and limit.
_BILL = script(
    _PRELUDE
    + """
if book.r ~= run then return 0 end
local bucket_ms, life, settle = argn(), argn(), argn()
local epoch = num('e')
local reply = {epoch, now}
local function ceiling(day)
  local top, kept = num('l|' .. day), ''
  for nanos, till in string.gmatch(book['x|' .. day] or '', '(%d+):(%d+);') do
    if tonumber(till) >= now then
      top = math.max(top, tonumber(nanos))
      kept = kept .. nanos .. ':' .. till .. ';'
    end
  end
  if book['x|' .. day] then set('x|' .. day, kept) end
  return top
end
local function charge(day, instance, nanos, held)
  local leased, unsettled = 'L|' .. day .. '|' .. instance, 'U|' .. day .. '|' .. instance
  local billed = 'B|' .. day .. '|' .. instance
  set(billed, num(billed) + held)
  local first = math.min(nanos, num(leased))
  if book[leased] then
    set(leased, num(leased) - first)
    set(unsettled, num(unsettled) + held)
  end
  set('a|' .. day, num('a|' .. day) - (nanos - first))
  set('s|' .. day, num('s|' .. day) + nanos)
end
while at < #ARGV do
  local name, day, instance, price, held, expires, asked = arg(), arg(), arg(), argn(), argn(), argn(), argn()
  local bucket = int(math.floor(expires / bucket_ms))
  local known = redis.call('HGET', keys_of(bucket), name)
  if known and string.sub(known, 1, 1) == 'c' and (bucket + 1) * bucket_ms + life < now then
    local settled = tonumber(redis.call('HGET', keys_of(bucket), '@') or 0)
    if settled + settle < now then known = nil end
  end
  local accounts = {}
  if has(day) then accounts[1] = day end
  if day ~= 'life' and has('life') then accounts[#accounts + 1] = 'life' end
  local status, charged = 'again', 0
  if known then
    charged = tonumber(string.sub(known, 2))
  elseif (now > expires + life or expires <= num('k')) and asked ~= epoch then
    status = 'ask'
  else
    status = 'ok'
    local room = 0
    for index, account in ipairs(accounts) do
      local left = ceiling(account) - num('s|' .. account)
      room = index == 1 and left or math.min(room, left)
    end
    charged = math.max(0, math.min(price, room))
    for _, account in ipairs(accounts) do charge(account, instance, charged, held) end
    redis.call('HSET', keys_of(bucket), name, 'o' .. int(charged))
    if redis.call('HINCRBY', keys_of(bucket), '#', 1) == 1 then redis.call('PERSIST', keys_of(bucket)) end
    set('K|' .. bucket, 1)
  end
  reply[#reply + 1] = status
  reply[#reply + 1] = charged
  reply[#reply + 1] = #accounts
  for _, account in ipairs(accounts) do
    reply[#reply + 1] = account
    reply[#reply + 1] = num('s|' .. account)
    reply[#reply + 1] = num('l|' .. account)
  end
end
save()
return reply
"""
)

# ARGV: how long a lease, a bucket of keys, a key and settling last; then for each bill: key, day, instance, held,
# expires, and the bucket of its hold.
_SETTLE = script(
    _PRELUDE
    + """
if book.r ~= run then return 0 end
local lease, bucket_ms, life, settle = argn(), argn(), argn(), argn()
while at < #ARGV do
  local name, day, instance, held, expires, hold = arg(), arg(), arg(), argn(), argn(), arg()
  local bucket = math.floor(expires / bucket_ms)
  local names = keys_of(int(bucket))
  local known = redis.call('HGET', names, name)
  if known and string.sub(known, 1, 1) == 'o' then
    redis.call('HSET', names, name, 'c' .. string.sub(known, 2), '@', int(now))
    if redis.call('HINCRBY', names, '#', -1) == 0 then
      redis.call('PEXPIRE', names, int(math.max((bucket + 1) * bucket_ms + life - now, settle) + 1))
    end
    local accounts = {day}
    if day ~= 'life' then accounts[2] = 'life' end
    for _, account in ipairs(accounts) do
      if book['L|' .. account .. '|' .. instance] then
        redis.call('HINCRBY', settled_of(instance), account .. '|' .. hold, int(held))
        redis.call('PEXPIRE', settled_of(instance), int(lease + 86400000))
        local unsettled = 'U|' .. account .. '|' .. instance
        set(unsettled, math.max(0, num(unsettled) - held))
      end
    end
  end
end
save()
return 1
"""
)

# Returns 0 without a book; else its fields and values, and those of its bill keys.
_VIEW = script(
    _PRELUDE
    + """
if book.r ~= run then return 0 end
local names = {}
for _, bucket in ipairs(each('K|')) do
  for _, value in ipairs(redis.call('HGETALL', keys_of(bucket))) do names[#names + 1] = value end
end
return {raw, names}
"""
)


class Scripts(NamedTuple):
    """All of them."""

    identity: Script = _IDENTITY
    install: Script = _INSTALL
    sync: Script = _SYNC
    bill: Script = _BILL
    settle: Script = _SETTLE
    view: Script = _VIEW
