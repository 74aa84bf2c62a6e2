"""What a rollout's driver sees before it decides: runtime, slot, gateway, and the checks on the new version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slipway.core.checks import error_rate, readiness
from slipway.core.rollout import Observation, Phase
from slipway.core.verdict import Check, Verdict
from slipway.errors import GatewayError
from slipway.ports import Readiness

if TYPE_CHECKING:
    from slipway.core.fleet import SlotRecord
    from slipway.core.rollout import Rollout
    from slipway.core.routes import GatewayState
    from slipway.jobs.parts import Parts

__all__ = ["observe", "slot_record"]

_IN_TRAFFIC = frozenset({Phase.SHIFTING, Phase.BAKING})
_ASKED = _IN_TRAFFIC | {Phase.VERIFYING}


def slot_record(parts: Parts, rollout: Rollout) -> SlotRecord:
    """The row of the slot that the rollout's version gets."""
    return next(slot for slot in parts.store.slots(rollout.model) if slot.slot == rollout.slot)


def observe(parts: Parts, rollout: Rollout) -> Observation:
    """Look once at everything that the rollout's phase needs to know.

    Raises:
        RuntimeSlotError: the runtime did not answer. A gateway that does not answer is part of the observation.
    """
    record = slot_record(parts, rollout)
    mine = record.version == rollout.version  # before that, the slot may hold a former version kept warm
    there = [s for s in parts.runtime.list() if (s.model, s.slot) == (rollout.model, rollout.slot)]
    running = mine and any(slot.running and slot.version == rollout.version for slot in there)
    asked = Readiness(False, "the slot does not run")
    if running and rollout.phase in _ASKED:
        asked = parts.probe.ready(rollout.model, record.port)
    try:
        gateway: GatewayState | None = parts.gateway.observe()
    except GatewayError:
        gateway = None
    return Observation(
        running=running,
        occupied=mine and bool(there),
        ready=asked.ready,
        ready_detail=asked.detail,
        weights=None if gateway is None else dict(gateway.weights.get(rollout.model, {})),
        active=0 if gateway is None else gateway.of(rollout.model, rollout.slot).active,
        checks=_checks(rollout, asked, gateway),
    )


def _checks(rollout: Rollout, asked: Readiness, gateway: GatewayState | None) -> tuple[Check, ...]:
    """Judgements on the interval since the gateway confirmed the step's weights; none before that."""
    if rollout.phase not in _IN_TRAFFIC or rollout.confirmed_at is None:
        return ()
    ready = readiness(asked.ready, asked.detail)
    if gateway is None:
        return (ready, Check("error_rate", Verdict.ERROR, "the gateway does not answer"))
    stats, before = gateway.of(rollout.model, rollout.slot), dict(rollout.baseline)
    if stats.requests < before.get("requests", 0):
        before = {}  # the gateway was restarted and counts from zero
    requests, errors = (stats.requests - before.get("requests", 0), stats.errors - before.get("errors", 0))
    policy = rollout.policy
    return (ready, error_rate(requests, errors, limit=policy.max_error_rate, min_requests=policy.min_requests))
