"""Compare gateway, slots, registry alias, rollouts and ledger with the tables, and change nothing.

`reconcile` repairs; this only looks, for `slipway doctor` and for whoever has to prove that all agree. While a
rollout moves, a difference of a moment is right: what counts is what two looks in a row both see.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from slipway.core.fleet import SlotRecord, Traffic, slot_is_wanted
from slipway.errors import NotFoundError, SlipwayError
from slipway.jobs.reconcile import Finding
from slipway.jobs.release import CHAMPION
from slipway.ports import Slot

if TYPE_CHECKING:
    from slipway.core.rollout_record import Rollout
    from slipway.jobs.parts import Parts

__all__ = ["survey"]

_SILENT = timedelta(minutes=2)


def survey(parts: Parts, *, again_after_seconds: float = 1.0, registry: bool = True) -> list[Finding]:
    """Every difference that two looks in a row both see; empty when there is one consistent truth.

    Raises:
        StoreError: Postgres does not answer, so nobody knows what is wanted.
    """
    first = _look(parts, registry)
    if not first:
        return []
    parts.clock.sleep(again_after_seconds)
    seen = {(one.kind, one.model, one.detail) for one in first}
    return [one for one in _look(parts, registry) if (one.kind, one.model, one.detail) in seen]


def _look(parts: Parts, registry: bool) -> list[Finding]:
    slots, traffic = parts.store.fleet()
    active = {rollout.model: rollout for rollout in parts.store.all_active()}
    findings = [*_gateway(parts, traffic, active), *_slots(parts, slots, traffic, active)]
    for row in traffic:
        findings += _ledger(parts, row)
        if registry and row.model not in active:
            findings += _alias(parts, row)
    findings += [
        _found("rollout", model, f"nobody drives the rollout of version {rollout.version}, {rollout.phase}")
        for model, rollout in active.items()
        if parts.clock.now() - rollout.driven_at > _SILENT
    ]
    if missing := parts.ledger.missing_rows():
        findings.append(_found("ledger", "", f"{missing} rows of the ledger are missing"))
    return findings


def _found(kind: str, model: str, detail: str) -> Finding:
    return Finding(kind, model, detail, repaired=False)


def _gateway(parts: Parts, traffic: Sequence[Traffic], active: dict[str, Rollout]) -> list[Finding]:
    try:
        state = parts.gateway.observe()
    except SlipwayError as error:
        return [_found("gateway", "", str(error))]
    findings = []
    for row in traffic:
        if row.model in active:
            continue
        applied, mirrored = dict(state.weights.get(row.model, {})), dict(state.shadows.get(row.model, {}))
        if applied != row.weights:
            findings.append(_found("gateway", row.model, f"weights should be {row.weights} and are {applied}"))
        if mirrored:
            findings.append(_found("gateway", row.model, f"traffic is mirrored to {mirrored} and no rollout runs"))
    return findings


def _slots(
    parts: Parts, slots: Sequence[SlotRecord], traffic: Sequence[Traffic], active: dict[str, Rollout]
) -> list[Finding]:
    try:
        present = list(parts.runtime.list())
    except SlipwayError as error:
        return [_found("runtime", "", str(error))]
    by_model, findings = {row.model: row for row in traffic}, []
    for slot in slots:
        if slot.model in active:
            continue
        there = next((one for one in present if (one.model, one.slot) == (slot.model, slot.slot)), None)
        findings += _slot(parts, slot, by_model.get(slot.model, Traffic(slot.model)), there)
    known = {(slot.model, slot.slot) for slot in slots}
    findings += [
        _found("slot", one.model, f"slot {one.slot} runs and is in no table")
        for one in present
        if (one.model, one.slot) not in known
    ]
    return findings


def _slot(parts: Parts, slot: SlotRecord, traffic: Traffic, there: Slot | None) -> list[Finding]:
    if slot.version is None:
        if weight := traffic.weights.get(slot.slot):
            return [_found("slot", slot.model, f"slot {slot.slot} has {weight} per cent of the traffic and no version")]
        gone = there is None
        return [] if gone else [_found("slot", slot.model, f"slot {slot.slot} should be empty and is not")]
    if not slot_is_wanted(slot, traffic, parts.clock.now()):
        return []  # it is being stopped
    if there is None or not there.running or there.version != slot.version:
        has = f"version {there.version}, {'running' if there.running else 'down'}" if there else "nothing"
        return [_found("slot", slot.model, f"slot {slot.slot} should run version {slot.version} and has {has}")]
    ready = parts.probe.ready(slot.model, slot.address)
    if not ready.ready:
        return [_found("slot", slot.model, f"slot {slot.slot}, version {slot.version}, is not ready: {ready.detail}")]
    told = ready.identity.get("version")
    if told is not None and str(told) != slot.version:
        detail = f"{slot.address} of slot {slot.slot} is answered by version {told} instead of {slot.version}"
        return [_found("slot", slot.model, f"{detail}; another process answers there")]
    return []


def _alias(parts: Parts, traffic: Traffic) -> list[Finding]:
    if parts.registry is None or traffic.live_version is None:
        return []
    try:
        named = parts.registry.by_alias(traffic.model, CHAMPION)
    except NotFoundError:
        named = None
    except SlipwayError as error:
        return [_found("alias", traffic.model, str(error))]
    is_now = named.version if named else "none"
    if is_now == traffic.live_version:
        return []
    return [_found("alias", traffic.model, f"champion names version {is_now}, live is {traffic.live_version}")]


def _ledger(parts: Parts, traffic: Traffic) -> list[Finding]:
    now, model = parts.clock.now(), traffic.model
    row, weights = parts.ledger.live_at(model, now), dict(parts.ledger.weights_at(model, now))
    recorded, findings = row.version if row else None, []
    if recorded != traffic.live_version:
        detail = f"the ledger says that version {recorded or 'none'} is live, the tables say {traffic.live_version}"
        findings.append(_found("ledger", model, detail))
    if weights != traffic.weights:
        detail = f"the ledger says that the weights are {weights}, the tables say {traffic.weights}"
        findings.append(_found("ledger", model, detail))
    return findings
