"""Lua scripts that run in Redis. Every key of a call is in one hash slot, unless the server is a single one."""

from __future__ import annotations

from hashlib import sha1
from typing import NamedTuple


class Script(NamedTuple):
    """A script and the hash that EVALSHA calls it by."""

    text: str
    sha: str


def script(text: str) -> Script:
    """A script by its text."""
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


# KEYS: the batch's mark, then each user's counters.
# ARGV: how long the mark stays (ms), the most campaigns a user keeps; then for each user the number of counts, and for
# each of these campaign id and window (ms).
# A window starts with its first count; those that ended are left out, and of too many the one that ends first. What
# stands there and cannot be read is replaced.
# Returns 1, or 0 when the batch was counted before. Nothing is written unless all is: an error comes with the first
# write, which is the mark.
COUNT = script("""
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if not redis.call('SET', KEYS[1], '', 'NX', 'PX', ARGV[1]) then return 0 end
local most, at = tonumber(ARGV[2]), 3
for user = 2, #KEYS do
  local windows, kept = {}, 0
  local stored = redis.pcall('GET', KEYS[user])
  local readable, known = pcall(cjson.decode, stored)
  if readable and type(known) == 'table' then
    for campaign, window in pairs(known) do
      if type(window) == 'table' and type(window[1]) == 'number' and (tonumber(window[2]) or 0) > now then
        windows[campaign] = window
        kept = kept + 1
      end
    end
  end
  for _ = 1, tonumber(ARGV[at]) do
    local campaign, window = ARGV[at + 1], windows[ARGV[at + 1]]
    if window then
      window[1] = window[1] + 1
    else
      windows[campaign] = {1, now + tonumber(ARGV[at + 2])}
      kept = kept + 1
    end
    at = at + 2
  end
  at = at + 1
  local last = now
  while kept > most do
    local first
    for campaign, window in pairs(windows) do
      if not first or window[2] < windows[first][2] then first = campaign end
    end
    windows[first] = nil
    kept = kept - 1
  end
  for _, window in pairs(windows) do last = math.max(last, window[2]) end
  redis.call('SET', KEYS[user], cjson.encode(windows), 'PX', string.format('%d', last - now))
end
return 1
""")
