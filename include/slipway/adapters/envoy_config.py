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
* A slot in a container is known by its name, and has another address after each start. `LOGICAL_DNS`, since it
  keeps the last address while the name is unknown: requests then wait for a restarted slot as they do elsewhere,
  where `STRICT_DNS` has no host left and answers 503 at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from slipway.adapters.envoy_filters import METADATA, http_filters, rate_limit_actions
from slipway.adapters.envoy_replies import local_replies
from slipway.adapters.envoy_shapes import address as _address
from slipway.adapters.envoy_shapes import file_source as _file_source
from slipway.adapters.envoy_shapes import header as _header
from slipway.adapters.envoy_shapes import typed as _typed
from slipway.core.edge import Edge
from slipway.core.routes import LONGEST_PAUSE_SECONDS, REPEATED_SECONDS, Backend, Route, cluster_name

__all__ = [
    "CERTIFICATE_FILE",
    "CONTROL_CLUSTER",
    "PREDICT",
    "ROUTE_CONFIG",
    "bootstrap",
    "certificate_resource",
    "cluster_resources",
    "is_ip",
    "route_resource",
]

ROUTE_CONFIG = "slipway"
CONTROL_CLUSTER = "control"
PREDICT = "/predict/"
CERTIFICATE_FILE = "certificate.json"

_CERTIFICATE = "gateway"
_CONTROL_PATHS = ("/models/info", "/config", "/docs", "/openapi.json")
_CONTROL_PREFIXES = ("/config/", "/retrain/", "/docs/")
_CONTROL_REWRITE = "/slipway/api"
_SPLIT_ROUTES = (PREDICT, "/invocations/", "/feedback/")
_MIRRORED_ROUTES = (PREDICT, "/invocations/")
_SHADOW_HEADER = "x-slipway-shadow"
_LIVE_ROUTES = ("/health/", "/metrics/")
_REQUEST_TIMEOUT = "30s"
_UPSTREAM_IDLE = "30s"  # shorter than a bento's keep-alive, so that Envoy never writes on a connection that closes
# Only failures before anything was sent are retried, so a POST is safe. Each pause is drawn from 0 to its interval.
_RETRY = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": round(REPEATED_SECONDS / (LONGEST_PAUSE_SECONDS / 2)),
    "retry_back_off": {"base_interval": "0.1s", "max_interval": f"{LONGEST_PAUSE_SECONDS}s"},
}
_RESOLVE_AGAIN = "0.5s"
_LIMITS = {"max_connections": 1024, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 4096}
# Envoy's own defaults would let one connection hold a gigabyte.
_HTTP2 = {
    "max_concurrent_streams": 128,
    "initial_stream_window_size": 65_536,
    "initial_connection_window_size": 1_048_576,
}

# --- bootstrap ------------------------------------------------------------------------------------------


def _access_log(path: Path, edge: Edge) -> dict[str, Any]:
    """A line of JSON for each request. Neither bodies nor keys nor query strings are in it."""
    line = {
        "ts": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ:ORIG_OR_PATH)%",
        "model": f"%METADATA(ROUTE:{METADATA}:model)%",
        "version": "%RESP(X-MODEL-VERSION)%",
        "slot": "%RESP(X-SLOT)%",
        "status": "%RESPONSE_CODE%",
        "detail": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    }
    if edge.reads_keys:
        line["key"] = f"%DYNAMIC_METADATA({METADATA}:key)%"
    config = _typed("extensions.access_loggers.file.v3.FileAccessLog", path=str(path), log_format={"json_format": line})
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def _connection_manager(xds_dir: Path, max_body_bytes: int, edge: Edge) -> dict[str, Any]:
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
        http2_protocol_options=_HTTP2,
        early_header_mutation_extensions=[
            {"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": random_bits}
        ],
        local_reply_config=local_replies(max_body_bytes, edge),
        access_log=[_access_log(edge.access_log, edge)] if edge.access_log else [],
        rds={"route_config_name": ROUTE_CONFIG, "config_source": _file_source(xds_dir / "rds.json")},
        http_filters=http_filters(xds_dir, max_body_bytes, edge),
    )


def _transport(xds_dir: Path) -> dict[str, Any]:
    """TLS with the certificate of a file that may be replaced at any time."""
    source = {"name": _CERTIFICATE, "sds_config": _file_source(xds_dir / CERTIFICATE_FILE)}
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_certificate_sds_secret_configs": [source],
    }
    context = _typed("extensions.transport_sockets.tls.v3.DownstreamTlsContext", common_tls_context=common)
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def certificate_resource(chain_pem: str, key_pem: str) -> dict[str, Any]:
    """Certificate and key in one file, so that one never comes without the other."""
    pair = {"certificate_chain": {"inline_string": chain_pem}, "private_key": {"inline_string": key_pem}}
    return _typed("extensions.transport_sockets.tls.v3.Secret", name=_CERTIFICATE, tls_certificate=pair)


def bootstrap(
    xds_dir: Path,
    *,
    host: str,
    gateway_port: int,
    admin_port: int,
    control_host: str,
    control_port: int,
    max_body_bytes: int,
    edge: Edge,
    control_headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The static part: listener, admin port, the control cluster, and where the dynamic files lie."""
    manager = _connection_manager(xds_dir, max_body_bytes, edge)
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    chain = {"filters": filters} | ({"transport_socket": _transport(xds_dir)} if edge.tls else {})
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
        **_discovery_of(host),
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


def _discovery_of(host: str) -> dict[str, Any]:
    if is_ip(host):
        return {"type": "STATIC"}
    # A name that nobody has yet may be asked of a server far away: without an end Envoy would wait for 20 s.
    options = {"no_default_search_domain": True}
    cares = _typed(
        "extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        dns_resolver_options=options,
        query_timeout_seconds=1,
        query_tries=1,
    )
    return {
        "type": "LOGICAL_DNS",
        "dns_lookup_family": "V4_PREFERRED",
        "dns_refresh_rate": _RESOLVE_AGAIN,
        "dns_failure_refresh_rate": {"base_interval": _RESOLVE_AGAIN, "max_interval": _RESOLVE_AGAIN},
        "typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": cares},
    }


def is_ip(host: str) -> bool:
    """Whether it is an address rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def cluster_resources(fleet: Sequence[Route]) -> list[dict[str, Any]]:
    """Both slots of every model, also those without traffic."""
    return [
        _typed("config.cluster.v3.Cluster", **_cluster(cluster_name(route.model, slot.slot), slot.host, slot.port))
        for route in fleet
        for slot in route.backends
    ]


def _answer(match: dict[str, Any], status: int, body: str, content_type: str | None = None) -> dict[str, Any]:
    route: dict[str, Any] = {"match": match, "direct_response": {"status": status, "body": {"inline_string": body}}}
    if content_type:
        route["response_headers_to_add"] = [_header("content-type", content_type)]
    return route


def _to_control(match: dict[str, Any], path: str) -> dict[str, Any]:
    """Pages of the documentation must not be framed by others; all else tells of a moment and is kept by nobody."""
    page = path.startswith("/docs")
    name, value = ("content-security-policy", "frame-ancestors 'none'") if page else ("cache-control", "no-store")
    action = {
        "cluster": CONTROL_CLUSTER,
        "prefix_rewrite": _CONTROL_REWRITE + path,
        "timeout": _REQUEST_TIMEOUT,
        "rate_limits": rate_limit_actions("control", "all"),
    }
    return {"match": match, "route": action, "response_headers_to_add": [_header(name, value)]}


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
    if path.startswith(_SPLIT_ROUTES):
        action["rate_limits"] = rate_limit_actions(path.split("/")[1], model)
    if mirror:
        action["request_mirror_policies"] = list(mirror)
    told = {"filter_metadata": {METADATA: {"model": model}}}  # to the access log
    return {"match": {"path": path}, "metadata": told, "route": action}


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
