"""What a rollout's driver sees before it decides: runtime, slot, gateway, and the checks on the new version.

All of it comes from the slots and the gateway themselves; no monitoring system is asked.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from slipway.core.checks import readiness
from slipway.core.rollout_record import WATCHED, Observation, Phase
from slipway.errors import GatewayError, RuntimeSlotError
from slipway.jobs.compare_log import log_checks
from slipway.jobs.compare_slots import renewed_baseline, shadow_checks, traffic_checks
from slipway.ports import Readiness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slipway.core.fleet import SlotRecord
    from slipway.core.rollout_record import Rollout
    from slipway.core.routes import GatewayState
    from slipway.core.verdict import Check
    from slipway.jobs.parts import Parts
    from slipway.ports import Slot

__all__ = ["observe", "slot_record"]

# Looking costs the supervisor and the gateway processor time that serving needs: where a decision asks for none, nobody
# looks.
_ASKS_RUNTIME = (Phase.STARTING, Phase.VERIFYING, *WATCHED)
_ASKS_SLOT = (Phase.VERIFYING, *WATCHED, Phase.ROLLING_BACK)
_ASKS_GATEWAY = (*WATCHED, Phase.PROMOTING, Phase.ROLLING_BACK)


def slot_record(parts: Parts, rollout: Rollout) -> SlotRecord:
    """The row of the slot that the rollout's version gets."""
    return next(slot for slot in parts.store.slots(rollout.model) if slot.slot == rollout.slot)


def observe(parts: Parts, rollout: Rollout) -> tuple[Observation, Rollout]:
    """Look once at what the rollout's phase needs to know; the rollout returns with what was found out.

    A runtime or a gateway that does not answer is part of the observation: traffic can be moved without the one, and
    a slot be stopped without the other.
    """
    record = slot_record(parts, rollout)
    mine = record.version == rollout.version  # before that, the slot may hold a former version kept warm
    there = _there(parts, rollout) if mine else ()
    running: bool | None = None
    if there is not None:
        running = any(slot.running and slot.version == rollout.version for slot in there)
    asked = Readiness(False, "the slot does not run", dead=True)
    if running and rollout.phase in _ASKS_SLOT:
        asked = _ready(parts, rollout, record)
    elif running is None and rollout.phase in (Phase.STARTING, *_ASKS_SLOT):
        asked = _ready(parts, rollout, record)
        running = True if asked.ready and asked.identity else None
    gateway: GatewayState | None = None
    if rollout.phase in _ASKS_GATEWAY:
        with suppress(GatewayError):
            gateway = parts.gateway.observe()
    looked = rollout.phase in WATCHED or (rollout.phase is Phase.ROLLING_BACK and rollout.confirmed_at is not None)
    weighted = gateway is not None and gateway.weights.get(rollout.model, {}).get(rollout.slot)
    if looked and asked.dead and (weighted or "traffic_since" in rollout.evidence):
        rollout = replace(rollout, evidence={**rollout.evidence, "dead_at": rollout.driven_at.isoformat()})
    checks, rollout = _checks(parts, rollout, asked, gateway)
    seen = Observation(
        running=running,
        occupied=None if there is None else bool(there),
        ready=asked.ready,
        ready_detail=asked.detail,
        dead=asked.dead,
        weights=None if gateway is None else dict(gateway.weights.get(rollout.model, {})),
        shadow=0 if gateway is None else gateway.shadows.get(rollout.model, {}).get(rollout.slot, 0),
        active=0 if gateway is None else gateway.of(rollout.model, rollout.slot).active,
        checks=checks,
    )
    return seen, replace(rollout, checks=tuple(checks) or rollout.checks)


def _there(parts: Parts, rollout: Rollout) -> Sequence[Slot] | None:
    """What the runtime has in the rollout's slot; None when it does not say."""
    back = rollout.phase is Phase.ROLLING_BACK and rollout.confirmed_at is not None  # first the traffic, then the slot
    if rollout.phase not in _ASKS_RUNTIME and not back:
        return ()
    try:
        return [slot for slot in parts.runtime.list() if (slot.model, slot.slot) == (rollout.model, rollout.slot)]
    except RuntimeSlotError:
        return None


def _ready(parts: Parts, rollout: Rollout, record: SlotRecord) -> Readiness:
    """Whether the slot answers its golden rows, and is the version that it should be where it says which it is."""
    asked = parts.probe.ready(rollout.model, record.address)
    told = asked.identity.get("version")
    if asked.ready and told is not None and str(told) != rollout.version:
        return Readiness(False, f"version {told} answers at {record.address}; another process holds the port")
    return asked


def _checks(
    parts: Parts, rollout: Rollout, asked: Readiness, gateway: GatewayState | None
) -> tuple[tuple[Check, ...], Rollout]:
    """Judgements on the interval since the gateway confirmed the step's weights; none before that."""
    if rollout.phase not in WATCHED or rollout.confirmed_at is None:
        return (), rollout
    rollout, slots = renewed_baseline(parts, rollout)
    alive = readiness(asked.ready, asked.detail)
    if rollout.phase is Phase.SHADOWING:
        found = shadow_checks(rollout, slots)
    else:
        found, rollout = traffic_checks(rollout, slots, gateway)
    logged, rollout = log_checks(parts, rollout)
    return (alive, *found, *logged), rollout
