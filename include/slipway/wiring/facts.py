"""Records as plain JSON-able values, as they travel through Airflow's XCom."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from slipway.errors import DataError

if TYPE_CHECKING:
    from slipway.core.fleet import ModelStatus

__all__ = ["facts", "now_utc", "parse_time", "plain", "rollout_facts", "slots_facts"]


def now_utc() -> datetime:
    """The one place where the wiring reads the clock."""
    return datetime.now(UTC)


def parse_time(text: str) -> datetime:
    """An ISO 8601 time; UTC when it names no zone.

    Raises:
        DataError: it is none.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"{text!r} is no ISO 8601 time; write it like 2026-11-20T10:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def slots_facts(status: ModelStatus) -> dict[str, Any]:
    """Both slots of a model: version, port, weight, and whether a bento runs there."""
    return {
        slot.slot: {
            "version": slot.version,
            "port": slot.port,
            "weight": status.weights.get(slot.slot, 0),
            "running": status.running.get(slot.slot) is not None,
        }
        for slot in status.slots
    }


def rollout_facts(rollout: Any) -> dict[str, Any]:
    """A rollout as anybody may read it: no evidence, since that names places of this machine."""
    return {
        "id": rollout.id,
        "kind": rollout.kind,
        "version": rollout.version,
        "phase": str(rollout.phase),
        "step": rollout.step,
        "slot": rollout.slot,
        "from_version": rollout.previous_version,
        "actor": rollout.actor,
        "reason": rollout.reason,
        "failure": rollout.failure,
        "awaits_approval": rollout.asked and not rollout.approved and not rollout.ended,
        "started_at": rollout.started_at.isoformat(),
    }


def facts(record: Any) -> dict[str, Any]:
    """A record's fields, JSON-able."""
    record_facts = plain(record)
    if not isinstance(record_facts, dict):
        raise TypeError(f"{type(record).__name__} has no fields")
    return record_facts


def plain(value: Any) -> Any:
    """JSON-able: records become objects, times ISO 8601."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return str(value)
