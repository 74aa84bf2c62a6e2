"""Compare what the tables want with what gateway, runtime and registry do; repair it, or say it.

Called by the keeper every second or so and by hand; it does nothing when all agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from slipway.core.faults import fault_point
from slipway.core.fleet import SlotRecord, Traffic, routes, slot_is_wanted
from slipway.core.rollout_record import Phase
from slipway.core.routes import GatewayState, Route, differences
from slipway.errors import ConflictError, NotFoundError, SlipwayError
from slipway.jobs.release import CHAMPION, advance, awaits_approval
from slipway.jobs.traffic import apply_fleet, model_lock
from slipway.ports import Slot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from slipway.core.rollout_record import Rollout
    from slipway.jobs.parts import Parts

__all__ = ["Finding", "reconcile", "reconcile_registry", "take_over"]

_LOCK_SECONDS = 0.2
_MOMENT_SECONDS = 1.0
_STEPS = 20
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Finding:
    """One difference, and whether it was repaired; `model` is empty when it concerns the whole fleet."""

    kind: str
    model: str
    detail: str
    repaired: bool


def reconcile(parts: Parts, *, registry: bool = True) -> list[Finding]:
    """Repair every difference that can be repaired, and return all that were found.

    Args:
        registry: ask MLflow as well; it may take long to answer, and traffic must not wait for it.

    Raises:
        StoreError: Postgres does not answer, so nobody knows what is wanted.
    """
    slots, traffic = parts.store.fleet()
    try:
        present = list(parts.runtime.list())
    except SlipwayError as error:
        findings = [Finding("runtime", "", str(error), repaired=False)]
    else:
        findings = []
        for row in traffic:
            findings += _slots_of(parts, row, slots, present)
        findings += _orphans(parts, slots, present)
    findings += _gateway(parts)
    for row in traffic:
        findings += _ledger(parts, row)
    return [*findings, *reconcile_registry(parts)] if registry else findings


def reconcile_registry(parts: Parts) -> list[Finding]:
    """Move the champion alias of every model after its live version, whatever the registry says now."""
    return [finding for row in parts.store.traffic() for finding in _registry(parts, row)]


def take_over(parts: Parts, silence_seconds: float, taken: set[str] | None = None) -> list[Finding]:
    """Advance every rollout that nobody has driven for that long, until it waits for something.

    Args:
        taken: ids of the rollouts that the caller drives already; kept up to date. These, and those that wait for a
            person, are driven on after a moment of silence: their checks must stay armed.
    """
    taken = set() if taken is None else taken
    active = parts.store.all_active()
    taken &= {rollout.id for rollout in active}
    findings = []
    for rollout in active:
        silent = (parts.clock.now() - rollout.driven_at).total_seconds()
        watched = rollout.id in taken or awaits_approval(rollout)
        if silent < (min(_MOMENT_SECONDS, silence_seconds) if watched else silence_seconds):
            continue
        try:
            found = _drive_on(parts, rollout)
        except ConflictError:
            taken.discard(rollout.id)  # somebody drives it after all
        except (SlipwayError, OSError) as error:  # one model's full disk or damaged file stops no other's rollout
            findings.append(Finding("rollout", rollout.model, str(error), repaired=False))
        else:
            taken.add(rollout.id)
            if not watched or found.phase is not rollout.phase:
                detail = f"nobody drove the rollout of version {rollout.version} for {silent:.0f} s; now {found.phase}"
                findings.append(Finding("rollout", rollout.model, detail, repaired=True))
    return findings


def _drive_on(parts: Parts, rollout: Rollout) -> Rollout:
    """As many steps as can be made without waiting; bounded, so that no rollout keeps the others waiting."""
    for _ in range(_STEPS):
        progress = advance(parts, rollout.model, lock_seconds=_LOCK_SECONDS)
        rollout = progress.rollout if progress else rollout
        if progress is None or progress.waiting or rollout.ended:
            break
    return rollout


def _slots_of(parts: Parts, traffic: Traffic, slots: Sequence[SlotRecord], present: Sequence[Slot]) -> list[Finding]:
    """Start what should be up and stop what should not; a rollout's own slot is its driver's business.

    Seen without the lock first: while all is well, nobody is kept waiting.
    """
    model = traffic.model
    if all(_is_right(parts, slot, traffic, present) for slot in slots if slot.model == model):
        return []
    try:
        with parts.store.lock(model_lock(model), _LOCK_SECONDS):
            active = parts.store.active(model)
            traffic, present = parts.store.traffic_of(model), parts.runtime.list()
            mine = [slot for slot in parts.store.slots(model) if active is None or slot.slot != active.slot]
            if active:
                # The old slot has lost its traffic and is not kept warm yet: nothing is stopped under a rollout.
                mine = [slot for slot in mine if _is_wanted(parts, slot, traffic)]
            wrong = [slot for slot in mine if not _is_right(parts, slot, traffic, present)]
            return [_repair(parts, slot, traffic, present) for slot in wrong]
    except ConflictError:
        return []  # being worked on: looked at again next time


def _there(slot: SlotRecord, present: Sequence[Slot]) -> Slot | None:
    return next((s for s in present if (s.model, s.slot) == (slot.model, slot.slot)), None)


def _is_wanted(parts: Parts, slot: SlotRecord, traffic: Traffic) -> bool:
    return slot_is_wanted(slot, traffic, parts.clock.now(), active_requests=_active(parts, slot))


def _is_right(parts: Parts, slot: SlotRecord, traffic: Traffic, present: Sequence[Slot]) -> bool:
    there = _there(slot, present)
    if _is_wanted(parts, slot, traffic):
        return there is not None and there.running and there.version == slot.version
    return there is None and slot.version is None


def _repair(parts: Parts, slot: SlotRecord, traffic: Traffic, present: Sequence[Slot]) -> Finding:
    if slot.version and _is_wanted(parts, slot, traffic):
        return _bring_up(parts, slot, slot.version)
    return _take_down(parts, slot, _there(slot, present) is not None)


def _active(parts: Parts, slot: SlotRecord) -> int:
    if slot.drain_until is None:
        return 0
    try:
        return parts.gateway.observe().of(slot.model, slot.slot).active
    except SlipwayError:
        return 0


def _bring_up(parts: Parts, slot: SlotRecord, version: str) -> Finding:
    detail = f"slot {slot.slot} should run version {version} and does not"
    try:
        package = parts.store.package(slot.model, version)
        parts.packages.verify(package)
        parts.runtime.start(Slot(slot.model, slot.slot, slot.port, version, package.bento_tag, host=slot.host), package)
    except (SlipwayError, OSError) as error:
        return Finding("slot", slot.model, f"{detail}: {error}", repaired=False)
    return Finding("slot", slot.model, detail, repaired=True)


def _take_down(parts: Parts, slot: SlotRecord, there: bool) -> Finding:
    detail = f"slot {slot.slot} is no longer needed for version {slot.version or 'none'}"
    try:
        if there:
            parts.runtime.stop(Slot(slot.model, slot.slot, slot.port, slot.version, host=slot.host), _STOP_SECONDS)
            fault_point("taken_down")
        parts.store.assign(slot.model, slot.slot, None, None, parts.clock.now())
    except SlipwayError as error:
        return Finding("slot", slot.model, f"{detail}: {error}", repaired=False)
    return Finding("slot", slot.model, detail, repaired=True)


def _orphans(parts: Parts, slots: Sequence[SlotRecord], present: Sequence[Slot]) -> list[Finding]:
    known = {slot.model for slot in slots}
    findings = []
    for slot in present:
        if slot.model in known:
            continue
        try:
            parts.runtime.stop(slot, _STOP_SECONDS)
            repaired = True
        except SlipwayError:
            repaired = False
        findings.append(Finding("slot", slot.model, f"slot {slot.slot} runs for an unknown model", repaired=repaired))
    return findings


def _gateway(parts: Parts) -> list[Finding]:
    try:
        fleet = routes(*parts.store.fleet())
        state = parts.gateway.observe()
        if state.version == parts.gateway.version(fleet):
            return []
        repaired = apply_fleet(parts)
    except SlipwayError as error:
        return [Finding("gateway", "", str(error), repaired=False)]
    # Between a driver's intent and its act the two differ by right; publishing the intent early does no harm.
    moving = {rollout.model for rollout in parts.store.all_active()}
    return [finding for finding in _weight_findings(fleet, state, repaired) if finding.model not in moving]


def _weight_findings(fleet: Sequence[Route], before: GatewayState, after: GatewayState) -> list[Finding]:
    found = differences(fleet, before)
    if not found:
        return [Finding("gateway", "", f"routes {before.version or 'none'} are now {after.version}", repaired=True)]
    return [
        Finding("gateway", model, f"weights should be {wanted} and were {actual}", repaired=True)
        for model, (wanted, actual) in sorted(found.items())
    ]


def _registry(parts: Parts, traffic: Traffic) -> list[Finding]:
    """The alias follows the live version, except between a driver's two steps of promoting."""
    if traffic.live_version is None or parts.registry is None:
        return []
    model = traffic.model
    try:
        if _named(parts, model) == traffic.live_version == traffic.alias_version:
            return []
        with parts.store.lock(model_lock(model), _LOCK_SECONDS):
            active, traffic = parts.store.active(model), parts.store.traffic_of(model)
            if active is not None and active.phase is Phase.PROMOTING:
                return []
            named, live = _named(parts, model), str(traffic.live_version)
            if named == live:
                parts.store.alias_moved(model, live)
                return []
            detail = f"the champion alias should name version {live} and named {named or 'none'}"
            parts.registry.set_alias(model, CHAMPION, live)
            fault_point("realiased")
            parts.store.alias_moved(model, live)
    except ConflictError:
        return []  # being worked on: looked at again next time
    except SlipwayError as error:
        return [Finding("alias", model, f"the champion alias: {error}", repaired=False)]
    return [Finding("alias", model, detail, repaired=True)]


def _named(parts: Parts, model: str) -> str | None:
    """The version that the registry calls champion."""
    try:
        found = parts.registry.by_alias(model, CHAMPION) if parts.registry else None
    except NotFoundError:
        return None
    return found.version if found else None


def _ledger(parts: Parts, traffic: Traffic) -> list[Finding]:
    if _recorded(parts, traffic.model) == traffic.live_version:
        return []
    try:  # a promotion between the two looks is no difference: look again where none can happen
        with parts.store.lock(model_lock(traffic.model), _LOCK_SECONDS):
            recorded, live = _recorded(parts, traffic.model), parts.store.traffic_of(traffic.model).live_version
    except ConflictError:
        return []
    if recorded == live:
        return []
    detail = f"the ledger says that version {recorded or 'none'} is live, the tables say {live or 'none'}"
    return [Finding("ledger", traffic.model, detail, repaired=False)]


def _recorded(parts: Parts, model: str) -> str | None:
    row = parts.ledger.live_at(model, parts.clock.now())
    return row.version if row else None
