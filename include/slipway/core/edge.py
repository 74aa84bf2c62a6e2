"""What the gateway does at its edge, as data: TLS, keys, rate limits, compression, headers, access log.

Nothing here knows Envoy. The defaults switch everything off that costs time on the way of a prediction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from slipway.errors import SpecError

__all__ = ["ROUTE_KINDS", "Edge", "RateLimit", "RouteKind", "parse_rate_limits"]

RouteKind = Literal["predict", "invocations", "feedback", "control"]
ROUTE_KINDS: tuple[RouteKind, ...] = ("predict", "invocations", "feedback", "control")
_LIMIT = re.compile(r"(\w+)\s*=\s*(\d+)\s*/\s*([sm])")
_PERIODS = {"s": 1, "m": 60}


@dataclass(frozen=True)
class RateLimit:
    """At most `requests` in `period_seconds`, that many at once after a quiet time."""

    route: RouteKind
    requests: int
    period_seconds: int = 1

    @property
    def retry_after_seconds(self) -> int:
        """After which one more request is let through, in whole seconds as the header wants it."""
        return max(1, -(-self.period_seconds // self.requests))


@dataclass(frozen=True)
class Edge:
    """The gateway's options.

    Attributes:
        tls: it speaks HTTPS, with the certificate that was published.
        need_key: prediction and feedback routes want a key.
        limits: for each model and route; `control` for all control routes together.
        key_limits: for each key and route, over all models.
        gzip_min_bytes: answers of at least this size are compressed for callers who ask for it; 0 never.
        security_headers: nosniff on everything, HSTS under TLS.
        access_log: the file of the access log, `/dev/stdout` included; None for none.
    """

    tls: bool = False
    need_key: bool = False
    limits: tuple[RateLimit, ...] = ()
    key_limits: tuple[RateLimit, ...] = ()
    gzip_min_bytes: int = 0
    security_headers: bool = True
    access_log: Path | None = None

    @property
    def reads_keys(self) -> bool:
        """Whether the gateway has to know whose key a request carries."""
        return self.need_key or bool(self.key_limits)


def parse_rate_limits(text: str) -> tuple[RateLimit, ...]:
    """The limits in a setting such as `predict=500/s, control=30/m`.

    Raises:
        SpecError: it is written otherwise, names an unknown or the same route twice, or a limit is 0.
    """
    found: dict[str, RateLimit] = {}
    for part in (piece.strip() for piece in text.split(",") if piece.strip()):
        match = _LIMIT.fullmatch(part)
        if match is None or match[1] not in ROUTE_KINDS or int(match[2]) == 0 or match[1] in found:
            raise SpecError(
                f"rate limit {part!r}: write each route once, as predict=500/s or control=30/m; "
                f"routes: {', '.join(ROUTE_KINDS)}"
            )
        found[match[1]] = RateLimit(cast(RouteKind, match[1]), int(match[2]), _PERIODS[match[3]])
    return tuple(found.values())
