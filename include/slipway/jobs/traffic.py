"""Moving traffic: publish the whole fleet from the tables, read it back, and set a lasting A/B split."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from slipway.core.faults import fault_point
from slipway.core.fleet import ModelStatus, routes
from slipway.core.rollout_record import Phase
from slipway.core.routes import SLOTS, GatewayState, other_slot, split_weights
from slipway.errors import ConflictError, GatewayError, NotFoundError, RuntimeSlotError
from slipway.policy import RolloutPolicy

if TYPE_CHECKING:
    from slipway.core.routes import SlotName
    from slipway.jobs.parts import Parts
    from slipway.ports import Slot

__all__ = ["apply_fleet", "model_lock", "publish_fleet", "set_split", "slot_counters", "status"]

FLEET_LOCK = "the gateway's routes"


def model_lock(model: str) -> str:
    """The lock that everything takes that changes a model's slots or traffic."""
    return f"the traffic of {model}"


def publish_fleet(parts: Parts) -> None:
    """Hand the gateway the fleet as the tables have it now.

    One publisher at a time, each reading the tables under the lock: no model's change can overwrite another's.
    """
    with parts.store.lock(FLEET_LOCK):
        parts.gateway.publish(routes(*parts.store.fleet()))
        fault_point("published")


def apply_fleet(parts: Parts, wait_seconds: float = 5.0) -> GatewayState:
    """Publish the fleet and wait until the gateway says that it applies it.

    Raises:
        GatewayError: it does not answer or refuses; the tables and the files keep what is wanted.
    """
    with parts.store.lock(FLEET_LOCK):
        fleet = routes(*parts.store.fleet())
        parts.gateway.publish(fleet)
        fault_point("published")
        return parts.gateway.confirm(fleet, wait_seconds)


def set_split(parts: Parts, model: str, split: Mapping[str, int], *, actor: str, reason: str) -> dict[SlotName, int]:
    """Set a lasting split between champion and challenger, and return the weights by slot.

    Raises:
        ConflictError: a rollout runs, nothing is live, the weights are no split, or no challenger is up.
        StoreError: Postgres does not answer, so nothing has changed.
    """
    with parts.store.lock(model_lock(model)):
        if active := parts.store.active(model):
            raise ConflictError(f"a rollout of {model} version {active.version} runs; wait for it, or abort it")
        traffic = parts.store.traffic_of(model)
        if traffic.live_slot is None:
            raise NotFoundError(f"no version of {model} is live; release one first")
        weights = {slot: w for slot, w in split_weights(split, traffic.live_slot).items() if w}
        challenger = other_slot(traffic.live_slot)
        now = parts.clock.now()
        if challenger in weights:
            _require_up(parts, model, challenger)
        elif challenger in traffic.weights:
            latest = parts.store.latest(model, phase=Phase.LIVE)
            policy = latest.policy if latest else RolloutPolicy()
            until = now + timedelta(seconds=policy.keep_warm_seconds)
            parts.store.keep_warm(model, challenger, until, until + timedelta(seconds=policy.drain_seconds))
        counters = slot_counters(parts, model)
        parts.store.split(model, weights, parts.clock.now(), actor=actor, reason=reason, counters=counters)
        fault_point("split")
        apply_fleet(parts)
        return weights


def slot_counters(parts: Parts, model: str) -> dict[str, dict[str, int]]:
    """What the gateway counted of the model's slots; empty when the gateway does not say, which delays no shift."""
    try:
        state = parts.gateway.observe()
    except GatewayError:
        return {}
    return {slot: state.of(model, slot).counted for slot in SLOTS}


def _require_up(parts: Parts, model: str, slot: SlotName) -> None:
    record = next((s for s in parts.store.slots(model) if s.slot == slot), None)
    if record is None or record.version is None:
        raise ConflictError(f"{model} has no challenger that runs; release a version, the former one then stays warm")
    readiness = parts.probe.ready(model, record.address)
    if not readiness.ready:
        raise ConflictError(f"the challenger of {model}, version {record.version}, is not ready: {readiness.detail}")


def status(parts: Parts, model: str | None = None) -> list[ModelStatus]:
    """Every model as the tables have it, beside what gateway and runtime say (None and empty when they are down)."""
    slots, traffic = parts.store.fleet()
    active = {rollout.model: rollout for rollout in parts.store.all_active()}
    try:
        applied: GatewayState | None = parts.gateway.observe()
    except GatewayError:
        applied = None
    running = _running(parts)
    found = [
        ModelStatus(
            model=row.model,
            live_version=row.live_version,
            live_slot=row.live_slot,
            weights=row.weights,
            slots=tuple(slot for slot in slots if slot.model == row.model),
            applied_weights=None if applied is None else dict(applied.weights.get(row.model, {})),
            running={s.slot: s.version for s in running if s.model == row.model and s.running},
            rollout=active.get(row.model),
            alias_pending=row.live_version != row.alias_version,
        )
        for row in traffic
        if model in (None, row.model)
    ]
    if model is not None and not found:
        known = ", ".join(row.model for row in traffic) or "none"
        raise NotFoundError(f"{model} was never released; released models: {known}")
    return found


def _running(parts: Parts) -> list[Slot]:
    try:
        return list(parts.runtime.list())
    except RuntimeSlotError:
        return []
