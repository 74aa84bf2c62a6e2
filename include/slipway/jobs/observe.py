"""What a rollout's driver sees before it decides: runtime, slot, gateway, and the checks on the new version.

All of it comes from the slots and the gateway themselves; no monitoring system is asked.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from slipway.core.checks import readiness
from slipway.core.rollout_record import WATCHED, Observation, Phase
from slipway.errors import GatewayError
from slipway.jobs.compare_log import log_checks
from slipway.jobs.compare_slots import renewed_baseline, shadow_checks, traffic_checks
from slipway.ports import Readiness

if TYPE_CHECKING:
    from slipway.core.fleet import SlotRecord
    from slipway.core.rollout_record import Rollout
    from slipway.core.routes import GatewayState
    from slipway.core.verdict import Check
    from slipway.jobs.parts import Parts

__all__ = ["observe", "slot_record"]

# Looking costs the supervisor and the gateway processor time that serving needs: where a decision asks for none, nobody
# looks.
_ASKS_RUNTIME = (Phase.STARTING, Phase.VERIFYING, *WATCHED, Phase.ROLLING_BACK)
_ASKS_GATEWAY = (*WATCHED, Phase.PROMOTING, Phase.ROLLING_BACK)


def slot_record(parts: Parts, rollout: Rollout) -> SlotRecord:
    """The row of the slot that the rollout's version gets."""
    return next(slot for slot in parts.store.slots(rollout.model) if slot.slot == rollout.slot)


def observe(parts: Parts, rollout: Rollout) -> tuple[Observation, Rollout]:
    """Look once at what the rollout's phase needs to know; the rollout returns with what was found out.

    Raises:
        RuntimeSlotError: the runtime did not answer. A gateway that does not answer is part of the observation.
    """
    record = slot_record(parts, rollout)
    mine = record.version == rollout.version  # before that, the slot may hold a former version kept warm
    slots = parts.runtime.list() if rollout.phase in _ASKS_RUNTIME else ()
    there = [slot for slot in slots if (slot.model, slot.slot) == (rollout.model, rollout.slot)]
    running = mine and any(slot.running and slot.version == rollout.version for slot in there)
    asked = Readiness(False, "the slot does not run")
    if running and (rollout.phase in WATCHED or rollout.phase is Phase.VERIFYING):
        asked = parts.probe.ready(rollout.model, record.address)
    gateway: GatewayState | None = None
    if rollout.phase in _ASKS_GATEWAY:
        with suppress(GatewayError):
            gateway = parts.gateway.observe()
    checks, rollout = _checks(parts, rollout, asked, gateway)
    seen = Observation(
        running=running,
        occupied=mine and bool(there),
        ready=asked.ready,
        ready_detail=asked.detail,
        weights=None if gateway is None else dict(gateway.weights.get(rollout.model, {})),
        shadow=0 if gateway is None else gateway.shadows.get(rollout.model, {}).get(rollout.slot, 0),
        active=0 if gateway is None else gateway.of(rollout.model, rollout.slot).active,
        checks=checks,
    )
    return seen, replace(rollout, checks=tuple(checks) or rollout.checks)


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
