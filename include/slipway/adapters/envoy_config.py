"""Envoy's configuration as plain data: the static bootstrap, and the clusters and routes of a fleet.

Facts that the shape rests on, each kept by a test against the real Envoy:

* `x-request-id`: Envoy's own generator makes version 4 and trusts any text, so a few lines of Lua keep a
  client's UUID and otherwise build a version 7 from the clock and from random bits that Envoy draws.
* Every answer of Envoy's own, direct responses included, passes through `local_reply_config`.
* A refused body must be read to its end, or many clients see a reset instead of the 413. The health-check
  filter is what Envoy has that discards a body without buffering it and then answers.
* A mirrored request is told apart by a header that Envoy sets on the copy alone; the client's own header of that
  name is removed from every request before, so nobody outside can pass for a shadow.
* Labels are never mirrored: they would be stored twice.
* Two clusters per model exist from its first release on, so a weight change never waits for a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slipway.core.routes import Backend, Route, cluster_name

__all__ = ["CONTROL_CLUSTER", "PREDICT", "ROUTE_CONFIG", "bootstrap", "cluster_resources", "route_resource"]

ROUTE_CONFIG = "slipway"
CONTROL_CLUSTER = "control"
PREDICT = "/predict/"

_TYPE = "type.googleapis.com/envoy."
_CONTROL_PATHS = ("/models/info", "/config", "/docs", "/openapi.json")
_CONTROL_PREFIXES = ("/config/", "/retrain/", "/docs/")
_CONTROL_REWRITE = "/slipway/api"
_SPLIT_ROUTES = (PREDICT, "/invocations/", "/feedback/")
_MIRRORED_ROUTES = (PREDICT, "/invocations/")
_SHADOW_HEADER = "x-slipway-shadow"
_LIVE_ROUTES = ("/health/", "/metrics/")
_REQUEST_TIMEOUT = "30s"
_UPSTREAM_IDLE = "30s"  # shorter than a bento's keep-alive, so that Envoy never writes on a connection that closes
_DRAIN_FACTOR = 8  # a refused body is read to its end up to this many times the limit; beyond it is cut off
# Only failures before anything was sent are retried, so a POST is safe; the back-off adds up to about as long as
# a killed bento needs to come back, so its callers wait instead of failing.
_RETRY = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 25,
    "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"},
}
_LIMITS = {"max_connections": 1024, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 2048}

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


def _typed(kind: str, **values: Any) -> dict[str, Any]:
    return {"@type": _TYPE + kind, **values}


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def _header(key: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": action}


def _file_source(path: Path) -> dict[str, Any]:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


# --- local replies: Envoy's own errors as problem+json --------------------------------------------------


def _status_is(status: int, comparison: str = "EQ") -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": f"slipway.reply.{comparison.lower()}.{status}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


def _flags(*flags: str) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": list(flags)}}


def _oversized(limit: int) -> dict[str, Any]:
    return {"name": "content-length", "range_match": {"start": limit + 1, "end": limit * _DRAIN_FACTOR}}


def _mapper(when: dict[str, Any], title: str, detail: str, status: int | None = None) -> dict[str, Any]:
    body = {"type": "about:blank", "title": title, "status": status or "%RESPONSE_CODE%", "detail": detail}
    mapper: dict[str, Any] = {
        "filter": when,
        "headers_to_add": [
            _header("x-request-id", "%REQ(X-REQUEST-ID)%", "ADD_IF_ABSENT"),
            # Requests that are not even HTTP never reach the Lua filter.
            _header("x-request-id", "%UNIQUE_ID%", "ADD_IF_ABSENT"),
        ],
        "body_format_override": {"json_format": body, "content_type": "application/problem+json"},
    }
    if status is not None:
        mapper["status_code"] = status
    return mapper


def _local_replies(max_body_bytes: int) -> dict[str, Any]:
    """First match wins. 404 and 503 without a failure flag are our own direct responses: their body is the detail."""
    too_large = f"the body may have at most {max_body_bytes} bytes"
    unanswered = "the model's server did not answer; try again in a few seconds"
    return {
        "mappers": [
            _mapper({"header_filter": {"header": _oversized(max_body_bytes)}}, "Content too large", too_large, 413),
            _mapper(_status_is(413), "Content too large", too_large),
            _mapper(_flags("UO"), "Too many requests", "more requests are waiting than the gateway holds", 429),
            _mapper(_status_is(429), "Too many requests", "more requests are waiting than the gateway holds"),
            _mapper(_flags("UT", "SI", "UMSDR"), "Gateway timeout", "no answer within the time limit", 504),
            _mapper(_status_is(504), "Gateway timeout", "no answer within the time limit"),
            _mapper(_flags("UF", "UH", "UC", "UR", "LR", "URX", "NC", "UPE"), "Service unavailable", unanswered, 503),
            _mapper(_status_is(404), "Not found", "%LOCAL_REPLY_BODY%"),
            _mapper(_status_is(503), "Service unavailable", "%LOCAL_REPLY_BODY%"),
            _mapper(_status_is(408), "Request timeout", "the request was not sent to its end in time"),
            _mapper(_status_is(431), "Header fields too large", "the request's header fields are too large"),
            _mapper(_status_is(500, "GE"), "Service unavailable", unanswered, 503),
            _mapper(_status_is(400, "GE"), "Bad request", "this is not a request that the gateway can read"),
        ]
    }


# --- bootstrap ------------------------------------------------------------------------------------------


def _http_filters(max_body_bytes: int) -> list[dict[str, Any]]:
    http = "extensions.filters.http."
    hidden = {"response_mutations": [{"remove": "x-envoy-upstream-healthchecked-cluster"}]}
    filters = (
        ("header_mutation", _typed(http + "header_mutation.v3.HeaderMutation", mutations=hidden)),
        ("lua", _typed(http + "lua.v3.Lua", default_source_code={"inline_string": _REQUEST_ID_LUA})),
        (
            "health_check",
            _typed(http + "health_check.v3.HealthCheck", pass_through_mode=False, headers=[_oversized(max_body_bytes)]),
        ),
        ("buffer", _typed(http + "buffer.v3.Buffer", max_request_bytes=max_body_bytes)),
        ("router", _typed(http + "router.v3.Router", suppress_envoy_headers=True)),
    )
    return [{"name": f"envoy.filters.http.{name}", "typed_config": config} for name, config in filters]


def _access_log(path: Path) -> dict[str, Any]:
    line = {
        "ts": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "method": "%REQ(:METHOD)%",
        "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "status": "%RESPONSE_CODE%",
        "detail": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "cluster": "%UPSTREAM_CLUSTER%",
        "duration_ms": "%DURATION%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
    }
    config = _typed("extensions.access_loggers.file.v3.FileAccessLog", path=str(path), log_format={"json_format": line})
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def _connection_manager(xds_dir: Path, max_body_bytes: int, access_log: Path | None) -> dict[str, Any]:
    random_bits = _typed(
        "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
        mutations=[{"append": _header("x-slipway-random", "%UNIQUE_ID%")}],
    )
    return _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        generate_request_id=False,
        preserve_external_request_id=True,
        server_header_transformation="PASS_THROUGH",
        use_remote_address=True,
        skip_xff_append=True,
        normalize_path=True,
        merge_slashes=True,
        # An escaped slash is part of a name here, and no name has one: such a path is simply unknown.
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        stream_idle_timeout="60s",
        request_timeout="60s",
        request_headers_timeout="10s",
        common_http_protocol_options={"idle_timeout": "300s"},
        http_protocol_options={"accept_http_10": True, "default_host_for_http_10": "slipway"},
        early_header_mutation_extensions=[
            {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": random_bits}
        ],
        local_reply_config=_local_replies(max_body_bytes),
        access_log=[_access_log(access_log)] if access_log else [],
        rds={"route_config_name": ROUTE_CONFIG, "config_source": _file_source(xds_dir / "rds.json")},
        http_filters=_http_filters(max_body_bytes),
    )


def bootstrap(
    xds_dir: Path,
    *,
    host: str,
    gateway_port: int,
    admin_port: int,
    control_host: str,
    control_port: int,
    max_body_bytes: int,
    access_log: Path | None = None,
    control_headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The static part: listener, admin port, the control cluster, and where the dynamic files lie."""
    manager = _connection_manager(xds_dir, max_body_bytes, access_log)
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    connections = _typed(
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=10_000,
    )
    return {
        "node": {"id": "slipway", "cluster": "slipway"},
        "admin": {"address": _address(host, admin_port)},
        "static_resources": {
            "listeners": [{"name": "gateway", "address": _address(host, gateway_port), "filter_chains": [chain]}],
            "clusters": [_cluster(CONTROL_CLUSTER, control_host, control_port, control_headers)],
        },
        "dynamic_resources": {"cds_config": _file_source(xds_dir / "cds.json")},
        "overload_manager": {
            "resource_monitors": [
                {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": connections}
            ]
        },
    }


# --- clusters and routes of a fleet ---------------------------------------------------------------------


def _cluster(name: str, host: str, port: int, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    options = _typed(
        "extensions.upstreams.http.v3.HttpProtocolOptions",
        common_http_protocol_options={"idle_timeout": _UPSTREAM_IDLE},
        explicit_http_config={"http_protocol_options": {}},
        **({"http_filters": _sends(headers)} if headers else {}),
    )
    endpoint = {"endpoint": {"address": _address(host, port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "circuit_breakers": {"thresholds": [_LIMITS]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _sends(headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """Filters that set these headers on every request to a cluster, whatever the client sent."""
    kind = "extensions.filters.http.header_mutation.v3.HeaderMutation"
    changes = [
        {"append": {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
        for name, value in headers.items()
    ]
    codec = _typed("extensions.filters.http.upstream_codec.v3.UpstreamCodec")
    return [
        {
            "name": "envoy.filters.http.header_mutation",
            "typed_config": _typed(kind, mutations={"request_mutations": changes}),
        },
        {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
    ]


def cluster_resources(fleet: Sequence[Route], host: str) -> list[dict[str, Any]]:
    """Both slots of every model, also those without traffic."""
    return [
        _typed("config.cluster.v3.Cluster", **_cluster(cluster_name(route.model, backend.slot), host, backend.port))
        for route in fleet
        for backend in route.backends
    ]


def _answer(match: dict[str, Any], status: int, body: str, content_type: str | None = None) -> dict[str, Any]:
    route: dict[str, Any] = {"match": match, "direct_response": {"status": status, "body": {"inline_string": body}}}
    if content_type:
        route["response_headers_to_add"] = [_header("content-type", content_type)]
    return route


def _to_control(match: dict[str, Any], rewrite: str) -> dict[str, Any]:
    action = {"cluster": CONTROL_CLUSTER, "prefix_rewrite": _CONTROL_REWRITE + rewrite, "timeout": _REQUEST_TIMEOUT}
    return {"match": match, "route": action}


def _to_slots(
    path: str, model: str, backends: Sequence[Backend], mirror: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    weighted = [{"name": cluster_name(model, b.slot), "weight": b.weight} for b in backends]
    action: dict[str, Any] = {
        "weighted_clusters": {"clusters": weighted, "use_hash_policy": True},
        "hash_policy": [{"header": {"header_name": "x-session-key"}, "terminal": True}],
        "timeout": _REQUEST_TIMEOUT,
        "retry_policy": _RETRY,
    }
    return {"match": {"path": path}, "route": action | ({"request_mirror_policies": list(mirror)} if mirror else {})}


def _mirror(route: Route) -> list[dict[str, Any]]:
    if route.shadow_slot is None or not route.shadow_percent:
        return []
    share = {"numerator": route.shadow_percent, "denominator": "HUNDRED"}
    return [
        {
            "cluster": cluster_name(route.model, route.shadow_slot),
            "runtime_fraction": {"default_value": share},
            "request_headers_mutations": [{"append": _header(_SHADOW_HEADER, "1")}],
            "disable_shadow_host_suffix_append": True,
        }
    ]


def _model_routes(route: Route) -> list[dict[str, Any]]:
    loaded = [backend for backend in route.backends if backend.weight > 0]
    if not loaded:
        detail = f"no version of {route.model} is live; release one first"
        return [_answer({"path": prefix + route.model}, 503, detail) for prefix in (*_SPLIT_ROUTES, *_LIVE_ROUTES)]
    main = max(loaded, key=lambda backend: backend.weight)
    alone = Backend(main.slot, main.port, 100)
    mirror = _mirror(route)
    return [
        *(
            _to_slots(prefix + route.model, route.model, loaded, mirror if prefix in _MIRRORED_ROUTES else ())
            for prefix in _SPLIT_ROUTES
        ),
        *(_to_slots(prefix + route.model, route.model, [alone]) for prefix in _LIVE_ROUTES),
    ]


def route_resource(fleet: Sequence[Route]) -> dict[str, Any]:
    """The whole route table. Exact paths of the models come before the 404 of their prefix."""
    unknown = "there is no such model; GET /models/info lists them"
    table = [_answer({"path": "/health"}, 200, '{"status":"ok"}', "application/json")]
    for route in fleet:
        table += _model_routes(route)
    table += [_to_control({"path": path}, path) for path in _CONTROL_PATHS]
    table += [_to_control({"prefix": prefix}, prefix) for prefix in _CONTROL_PREFIXES]
    table += [_answer({"prefix": prefix}, 404, unknown) for prefix in (*_SPLIT_ROUTES, *_LIVE_ROUTES)]
    table += [_answer({"prefix": "/"}, 404, "there is no such route; GET /docs lists them")]
    return _typed(
        "config.route.v3.RouteConfiguration",
        name=ROUTE_CONFIG,
        request_headers_to_remove=[_SHADOW_HEADER],
        response_headers_to_add=[_header("x-request-id", "%REQ(X-REQUEST-ID)%")],
        virtual_hosts=[{"name": "fleet", "domains": ["*"], "routes": table}],
    )
