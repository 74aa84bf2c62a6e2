"""An A/B split's results: what champion and challenger did with their parts of the traffic since it was set."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from slipway.core.routes import other_slot
from slipway.errors import GatewayError

if TYPE_CHECKING:
    from slipway.core.checks import SideLog
    from slipway.core.fleet import SlotRecord
    from slipway.core.routes import GatewayState
    from slipway.jobs.parts import LoggedLatency, Parts
    from slipway.ports import LedgerEntry

__all__ = ["Side", "sides"]

_LONGEST = timedelta(days=7)


@dataclass(frozen=True)
class Side:
    """One side's results.

    Attributes:
        requests, errors: by the gateway, since the weights last changed; 5xx answers are errors. Copies that are
            mirrored to a side without traffic are none.
        logged_requests, p50_ms, p99_ms: by the prediction log, which is a few seconds behind.
        quality: share of right answers, or the mean absolute error; None without labels.
        since: from when on, at most a week ago for what is read from the log.
    """

    version: str
    slot: str
    weight: int
    since: datetime | None
    requests: int | None = None
    errors: int | None = None
    logged_requests: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    labels: int = 0
    quality: dict[str, float] | None = None


def sides(parts: Parts, model: str) -> dict[str, Side]:
    """Both sides' results, by role; a side that holds no version is left out."""
    traffic, now = parts.store.traffic_of(model), parts.clock.now()
    if traffic.live_slot is None:
        return {}
    slots = {slot.slot: slot for slot in parts.store.slots(model) if slot.version}
    roles = {"champion": traffic.live_slot, "challenger": other_slot(traffic.live_slot)}
    row = next((row for row in parts.ledger.history(model, 1000) if row.event == "traffic"), None)
    gateway = _gateway(parts)
    versions = [slot.version for slot in slots.values() if slot.version]
    since = max(row.at, now - _LONGEST) if row else now - _LONGEST
    logs = parts.answers.sides(model, since, now, versions) if parts.answers else {}
    times = parts.answers.latency(model, since, now) if parts.answers else {}
    return {
        role: _side(slots[slot], traffic.weights.get(slot, 0), row, gateway, logs, times)
        for role, slot in roles.items()
        if slot in slots
    }


def _gateway(parts: Parts) -> GatewayState | None:
    try:
        return parts.gateway.observe()
    except GatewayError:
        return None


def _side(
    slot: SlotRecord,
    weight: int,
    row: LedgerEntry | None,
    gateway: GatewayState | None,
    logs: Any,
    times: dict[str, LoggedLatency] | Any,
) -> Side:
    version = slot.version or ""
    counted: dict[str, int] = {}
    if weight == 0:
        counted = {"requests": 0, "errors": 0}
    elif gateway is not None:
        stats = gateway.of(slot.model, slot.slot)
        before = (row.detail.get("counters") or {}).get(slot.slot, {}) if row else {}
        if stats.requests < before.get("requests", 0):
            before = {}  # the gateway was restarted and counts from zero
        counted = {
            "requests": stats.requests - before.get("requests", 0),
            "errors": stats.errors - before.get("errors", 0),
        }
    timed: dict[str, Any] = {}
    if version in times:
        one = times[version]
        timed = {"logged_requests": one.requests, "p50_ms": round(one.p50_ms, 3), "p99_ms": round(one.p99_ms, 3)}
    labelled = logs[version].labelled if version in logs else ()
    quality = _quality(logs[version]) if labelled else None
    since = row.at if row else None
    return Side(version, slot.slot, weight, since, **counted, **timed, labels=len(labelled), quality=quality)


def _quality(log: SideLog) -> dict[str, float]:
    pairs, count = log.labelled, len(log.labelled)
    if isinstance(pairs[0][0], str):
        return {"accuracy": round(sum(prediction == label for prediction, label in pairs) / count, 4)}
    return {"mae": sum(abs(float(prediction) - float(label)) for prediction, label in pairs) / count}
