"""Keys in Envoy: a few lines of Lua that know digests only.

A key's SHA-256 is computed once per worker and then remembered, so a caller's second request costs one look into a
table. Only keys that are right are remembered: guesses cannot fill the memory. The file is replaced as a whole
when a key comes or goes; Envoy takes it for the next request, without a restart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from slipway.adapters.envoy_shapes import typed
from slipway.core.keys import ApiKey

__all__ = ["KEYS_FILE", "KEYS_FILTER", "keys_resource", "needs_key"]

KEYS_FILE = "keys.json"
KEYS_FILTER = "slipway.keys"

# FIPS 180-4; the words of `k` and of the first state are the fractions of cube and square roots of primes.
_SHA256_LUA = """
local band, bxor, bnot = bit.band, bit.bxor, bit.bnot
local ror, shr, tobit, tohex = bit.ror, bit.rshift, bit.tobit, bit.tohex

local function fractions(count, root)
  local words, candidate = {}, 2
  while #words < count do
    local prime = true
    for d = 2, math.floor(math.sqrt(candidate)) do
      if candidate % d == 0 then prime = false break end
    end
    if prime then
      local part = candidate ^ root
      words[#words + 1] = tobit(math.floor((part - math.floor(part)) * 4294967296))
    end
    candidate = candidate + 1
  end
  return words
end

local K, FIRST = fractions(64, 1 / 3), fractions(8, 1 / 2)

local function sha256(text)
  local bits = #text * 8
  text = text .. "\\128" .. string.rep("\\0", (55 - #text) % 64) .. "\\0\\0\\0\\0"
      .. string.char(band(shr(bits, 24), 255), band(shr(bits, 16), 255), band(shr(bits, 8), 255), band(bits, 255))
  local s = {unpack(FIRST)}
  local w = {}
  for at = 1, #text, 64 do
    for i = 1, 16 do
      local b1, b2, b3, b4 = text:byte(at + i * 4 - 4, at + i * 4 - 1)
      w[i] = tobit(b1 * 16777216 + b2 * 65536 + b3 * 256 + b4)
    end
    for i = 17, 64 do
      local x, y = w[i - 15], w[i - 2]
      w[i] = tobit(w[i - 16] + bxor(ror(x, 7), ror(x, 18), shr(x, 3)) + w[i - 7]
          + bxor(ror(y, 17), ror(y, 19), shr(y, 10)))
    end
    local a, b, c, d, e, f, g, h = unpack(s)
    for i = 1, 64 do
      local t1 = h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + bxor(band(e, f), band(bnot(e), g)) + K[i] + w[i]
      local t2 = bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + bxor(band(a, b), band(a, c), band(b, c))
      h, g, f, e, d, c, b, a = g, f, e, tobit(d + t1), c, b, a, tobit(t1 + t2)
    end
    for i, value in ipairs({a, b, c, d, e, f, g, h}) do s[i] = tobit(s[i] + value) end
  end
  local digest = {}
  for i = 1, 8 do digest[i] = tohex(s[i]) end
  return table.concat(digest)
end
"""

_NEEDED = "local NEEDED = true"
_CHECK_LUA = """
local SCOPES = {predict = "predict", invocations = "predict", feedback = "feedback"}
local known = {}

local function find(key)
  local found = known[key]
  if found == nil and #key <= 256 then
    found = KEYS[sha256(key)]
    if found then known[key] = found end
  end
  return found
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local key = headers:get("x-api-key")
  local scope = SCOPES[(headers:get(":path") or ""):match("^/(%a+)/")]
  local found = key and find(key)
  if found then handle:streamInfo():dynamicMetadata():set("slipway", "key", found.name) end
  if scope == nil then return end
  headers:remove("x-api-key")
  if found and found[scope] then return end
  if found then
    handle:respond({[":status"] = "403"}, "this key may not be used for " .. scope)
  elseif key then
    handle:respond({[":status"] = "403"}, "the key is wrong, has expired or was revoked")
  elseif NEEDED then
    handle:respond({[":status"] = "401"}, "this route needs a key in x-api-key")
  end
end
"""


def needs_key(resource: Mapping[str, Any]) -> bool:
    """Whether a filter that was made here refuses requests without a key."""
    return _NEEDED in resource["typed_config"]["default_source_code"]["inline_string"]


def keys_resource(keys: Iterable[ApiKey], *, needed: bool) -> dict[str, Any]:
    """The filter that lets these keys through; with `needed` it refuses requests without one.

    Names and scopes are plain words and digests are hex, so they need no escape in Lua.
    """

    def row(key: ApiKey) -> str:
        fields = [f"name = {json.dumps(key.name)}", *(f"{scope} = true" for scope in key.scopes)]
        return f'  ["{key.sha256}"] = {{{", ".join(fields)}}},'

    rows = [row(key) for key in keys]
    table = "\n".join(["local KEYS = {", *rows, "}", _NEEDED if needed else "local NEEDED = false"])
    code = "\n".join([_SHA256_LUA, table, _CHECK_LUA])
    return typed(
        "config.core.v3.TypedExtensionConfig",
        name=KEYS_FILTER,
        typed_config=typed("extensions.filters.http.lua.v3.Lua", default_source_code={"inline_string": code}),
    )
