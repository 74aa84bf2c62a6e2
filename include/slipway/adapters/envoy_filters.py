"""The chain of Envoy's HTTP filters. An option that is off has no filter, so it costs nothing.

Facts that its order rests on, each kept by a test against the real Envoy:

* Keys and rates are asked before a body is read, and rates after keys, since a limit may be a key's own.
* What Lua learns of a key goes into the request's metadata, which no caller can write: limits and log read it there.
* Response mutations run for Envoy's own answers too, refusals included.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slipway.adapters.envoy_keys import KEYS_FILE, KEYS_FILTER
from slipway.adapters.envoy_replies import oversized
from slipway.adapters.envoy_shapes import file_source, header, typed
from slipway.core.edge import Edge, RateLimit

__all__ = ["METADATA", "http_filters", "rate_limit_actions"]

METADATA = "slipway"
_HTTP = "extensions.filters.http."
_HSTS = "max-age=31536000"
_COMPRESSED_TYPES = [
    "application/json",
    "application/problem+json",
    "application/javascript",
    "text/css",
    "text/html",
    "text/javascript",
    "text/plain",
]
_ALWAYS = {"numerator": 100, "denominator": "HUNDRED"}
_ENDLESS = {"max_tokens": 4_000_000_000, "tokens_per_fill": 4_000_000_000, "fill_interval": "1s"}

_REQUEST_ID_LUA = """
local UUID = "^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$"

function envoy_on_request(handle)
  local headers = handle:headers()
  local random = headers:get("x-slipway-random")
  headers:remove("x-slipway-random")
  local id = headers:get("x-request-id")
  if id and #id == 36 and headers:getNumValues("x-request-id") == 1 and id:find(UUID) then return end
  local ms = tonumber(handle:timestampString(EnvoyTimestampResolution.MILLISECOND))
  local high = math.floor(ms / 65536)
  headers:replace("x-request-id", string.format("%08x-%04x-7%s", high, ms - high * 65536, random:sub(16)))
end
"""


def http_filters(xds_dir: Path, max_body_bytes: int, edge: Edge) -> list[dict[str, Any]]:
    """The filters in the order in which a request meets them; an answer meets them the other way round."""
    health = typed(_HTTP + "health_check.v3.HealthCheck", pass_through_mode=False, headers=[oversized(max_body_bytes)])
    return [
        _filter("header_mutation", typed(_HTTP + "header_mutation.v3.HeaderMutation", mutations=_mutations(edge))),
        _filter("lua", typed(_HTTP + "lua.v3.Lua", default_source_code={"inline_string": _REQUEST_ID_LUA})),
        *([_keys(xds_dir)] if edge.reads_keys else []),
        *([_rates(edge)] if edge.limits or edge.key_limits else []),
        *([_gzip(edge.gzip_min_bytes)] if edge.gzip_min_bytes else []),
        _filter("health_check", health),
        _filter("buffer", typed(_HTTP + "buffer.v3.Buffer", max_request_bytes=max_body_bytes)),
        _filter("router", typed(_HTTP + "router.v3.Router", suppress_envoy_headers=True)),
    ]


def _filter(name: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"envoy.filters.http.{name}", "typed_config": config}


def _mutations(edge: Edge) -> dict[str, Any]:
    changes: list[dict[str, Any]] = [{"remove": "x-envoy-upstream-healthchecked-cluster"}]
    if edge.security_headers:
        changes.append({"append": header("x-content-type-options", "nosniff")})
    if edge.security_headers and edge.tls:
        changes.append({"append": header("strict-transport-security", _HSTS)})
    if edge.limits or edge.key_limits:
        changes.append({"remove": "x-envoy-ratelimited"})
    return {"response_mutations": changes}


def _keys(xds_dir: Path) -> dict[str, Any]:
    """Known by a file of its own, so that a key comes and goes without a restart."""
    source = {
        "config_source": file_source(xds_dir / KEYS_FILE),
        "type_urls": [typed(_HTTP + "lua.v3.Lua")["@type"]],
    }
    return {"name": KEYS_FILTER, "config_discovery": source}


def _bucket(limit: RateLimit) -> dict[str, Any]:
    tokens = {"max_tokens": limit.requests, "tokens_per_fill": limit.requests}
    return tokens | {"fill_interval": f"{limit.period_seconds}s"}


def _rates(edge: Edge) -> dict[str, Any]:
    """A bucket for each model and for each key that comes: an entry without a value stands for every value."""
    route = [
        {"entries": [{"key": "route", "value": limit.route}, {"key": "model"}], "token_bucket": _bucket(limit)}
        for limit in edge.limits
    ]
    keys = [
        {"entries": [{"key": "route", "value": limit.route}, {"key": "key"}], "token_bucket": _bucket(limit)}
        for limit in edge.key_limits
    ]
    config = typed(
        _HTTP + "local_ratelimit.v3.LocalRateLimit",
        stat_prefix="gateway",
        token_bucket=_ENDLESS,
        always_consume_default_token_bucket=False,
        filter_enabled={"default_value": _ALWAYS},
        filter_enforced={"default_value": _ALWAYS},
        descriptors=[*route, *keys],
        max_dynamic_descriptors=10_000,
    )
    return _filter("local_ratelimit", config)


def rate_limit_actions(kind: str, model: str) -> list[dict[str, Any]]:
    """What a route tells the rate limiter; without one it is never read."""
    route = {"generic_key": {"descriptor_key": "route", "descriptor_value": kind}}
    whose = {"key": METADATA, "path": [{"key": "key"}]}
    return [
        {"actions": [route, {"generic_key": {"descriptor_key": "model", "descriptor_value": model}}]},
        {"actions": [route, {"metadata": {"descriptor_key": "key", "metadata_key": whose, "source": "DYNAMIC"}}]},
    ]


def _gzip(min_bytes: int) -> dict[str, Any]:
    """Level 1, which costs least. An answer in chunks is a stream: compressing would hold its pieces back."""
    library = typed(
        "extensions.compression.gzip.compressor.v3.Gzip", compression_level="COMPRESSION_LEVEL_1", memory_level=8
    )
    config = typed(
        _HTTP + "compressor.v3.Compressor",
        response_direction_config={
            "common_config": {"min_content_length": min_bytes, "content_type": _COMPRESSED_TYPES},
            "disable_on_etag_header": True,
        },
        compressor_library={"name": "gzip", "typed_config": library},
    )
    chunked = typed("type.matcher.v3.HttpResponseHeaderMatchInput", header_name="transfer-encoding")
    skip = typed("extensions.filters.common.matcher.action.v3.SkipFilter")
    streams = {
        "predicate": {
            "single_predicate": {
                "input": {"name": "response-headers", "typed_config": chunked},
                "value_match": {"exact": "chunked"},
            }
        },
        "on_match": {"action": {"name": "skip", "typed_config": skip}},
    }
    unless = typed(
        "extensions.common.matching.v3.ExtensionWithMatcher",
        extension_config={"name": "envoy.filters.http.compressor", "typed_config": config},
        xds_matcher={"matcher_list": {"matchers": [streams]}},
    )
    return _filter("match_delegate", unless)
