"""Envoy's own errors as problem+json."""

from __future__ import annotations

from typing import Any

from slipway.adapters.envoy_shapes import header
from slipway.core.edge import Edge, RateLimit

__all__ = ["BROKEN_OFF", "KIND_PREFIXES", "local_replies", "oversized"]

_DRAIN_FACTOR = 8  # a refused body is read to its end up to this many times the limit; beyond it is cut off
# Such a request may have been worked on and logged; every other 503 of a slot was taken by nobody.
BROKEN_OFF = "the model's server ended while it had the request; try again in a few seconds"
KIND_PREFIXES = {
    "predict": "/predict/",
    "invocations": "/invocations/",
    "feedback": "/feedback/",
    "control": "/",  # what the other three have left over
}


def oversized(limit: int) -> dict[str, Any]:
    """Matches requests whose body is announced as larger than the limit."""
    return {"name": "content-length", "range_match": {"start": limit + 1, "end": limit * _DRAIN_FACTOR}}


def _status_is(status: int, comparison: str = "EQ") -> dict[str, Any]:
    value = {"default_value": status, "runtime_key": f"slipway.reply.{comparison.lower()}.{status}"}
    return {"status_code_filter": {"comparison": {"op": comparison, "value": value}}}


def _flags(*flags: str) -> dict[str, Any]:
    return {"response_flag_filter": {"flags": list(flags)}}


def _mapper(when: dict[str, Any], title: str, detail: str, status: int | None = None) -> dict[str, Any]:
    body = {"type": "about:blank", "title": title, "status": status or "%RESPONSE_CODE%", "detail": detail}
    mapper: dict[str, Any] = {
        "filter": when,
        "headers_to_add": [
            header("x-request-id", "%REQ(X-REQUEST-ID)%", "ADD_IF_ABSENT"),
            # Requests that are not even HTTP never reach the Lua filter.
            header("x-request-id", "%UNIQUE_ID%", "ADD_IF_ABSENT"),
        ],
        "body_format_override": {"json_format": body, "content_type": "application/problem+json"},
    }
    if status is not None:
        mapper["status_code"] = status
    return mapper


def _over_rate(kind: str, limits: list[RateLimit]) -> dict[str, Any]:
    """The refusal of one kind of route, with the time after which another try makes sense.

    Known by its status: the limiter sets its response flag only after the answer was made.
    """
    path = {"name": ":path", "string_match": {"prefix": KIND_PREFIXES[kind]}}
    when = {"and_filter": {"filters": [_status_is(429), {"header_filter": {"header": path}}]}}
    wait = max(limit.retry_after_seconds for limit in limits)
    unit = "second" if wait == 1 else "seconds"
    made = _mapper(when, "Too many requests", f"over the rate limit of this route; try again in {wait} {unit}", 429)
    made["headers_to_add"].append(header("retry-after", str(wait)))
    return made


def _rate_limited(edge: Edge) -> list[dict[str, Any]]:
    every = [*edge.limits, *edge.key_limits]
    own = {kind: [limit for limit in every if limit.route == kind] for kind in KIND_PREFIXES}
    return [_over_rate(kind, limits) for kind, limits in own.items() if limits]


def _unauthorised(edge: Edge) -> list[dict[str, Any]]:
    if not edge.reads_keys:
        return []
    missing = _mapper(_status_is(401), "Unauthorized", "%LOCAL_REPLY_BODY%")
    missing["headers_to_add"].append(header("www-authenticate", "ApiKey"))
    return [missing, _mapper(_status_is(403), "Forbidden", "%LOCAL_REPLY_BODY%")]


def local_replies(max_body_bytes: int, edge: Edge) -> dict[str, Any]:
    """First match wins. 404 and 503 without a failure flag are our own direct responses: their body is the detail."""
    too_large = f"the body may have at most {max_body_bytes} bytes"
    unanswered = "the model's server did not answer; try again in a few seconds"
    return {
        "mappers": [
            _mapper(_flags("UO"), "Too many requests", "more requests are waiting than the gateway holds", 429),
            *_rate_limited(edge),
            *_unauthorised(edge),
            _mapper({"header_filter": {"header": oversized(max_body_bytes)}}, "Content too large", too_large, 413),
            _mapper(_status_is(413), "Content too large", too_large),
            _mapper(_status_is(429), "Too many requests", "more requests are waiting than the gateway holds"),
            _mapper(_flags("UT", "SI", "UMSDR"), "Gateway timeout", "no answer within the time limit", 504),
            _mapper(_status_is(504), "Gateway timeout", "no answer within the time limit"),
            _mapper(_flags("UC", "UR"), "Service unavailable", BROKEN_OFF, 503),
            _mapper(_flags("UF", "UH", "LR", "URX", "NC", "UPE"), "Service unavailable", unanswered, 503),
            _mapper(_status_is(404), "Not found", "%LOCAL_REPLY_BODY%"),
            _mapper(_status_is(503), "Service unavailable", "%LOCAL_REPLY_BODY%"),
            _mapper(_status_is(408), "Request timeout", "the request was not sent to its end in time"),
            _mapper(_status_is(431), "Header fields too large", "the request's header fields are too large"),
            _mapper(_status_is(500, "GE"), "Service unavailable", unanswered, 503),
            _mapper(_status_is(400, "GE"), "Bad request", "this is not a request that the gateway can read"),
        ]
    }
