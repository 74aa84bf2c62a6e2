"""The new slot beside the old one, by their own counters and the gateway's, over the interval of one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from slipway.core.checks import error_rate, latency, refusals, saturation
from slipway.core.rollout import mirrors, target_weights
from slipway.core.rollout_record import Phase
from slipway.core.slot_metrics import SlotMetrics
from slipway.core.verdict import Check, Verdict
from slipway.errors import SlipwayError

if TYPE_CHECKING:
    from slipway.core.rollout_record import Rollout
    from slipway.core.routes import BackendStats, GatewayState, SlotName
    from slipway.jobs.parts import Parts

__all__ = ["SlotCounts", "baseline_of", "renewed_baseline", "shadow_checks", "traffic_checks"]

_SIDES = ("new", "old")


@dataclass(frozen=True)
class SlotCounts:
    """Both slots' counters since the baseline; None for a side that could not be asked, with the reason."""

    new: SlotMetrics | None = None
    old: SlotMetrics | None = None
    new_restarted: bool = False
    problem: str = ""


def baseline_of(parts: Parts, rollout: Rollout, gateway: GatewayState) -> dict[str, Any]:
    """Where the counters stand now: what comes later belongs to the interval that begins.

    A slot that cannot be asked is left out; its interval begins when it first answers.
    """
    values: dict[str, Any] = {"gateway": {}}
    for side, slot in zip(_SIDES, (rollout.slot, rollout.previous_slot), strict=True):
        if slot is not None:
            values["gateway"][side] = gateway.of(rollout.model, slot).counted
    if rollout.previous_slot is not None:
        values["formerly"] = _own_traffic(parts, rollout, gateway, rollout.previous_slot)
    if _wants_metrics(rollout):
        values |= {side: metrics.as_dict() for side, metrics in _read(parts, rollout)[0].items()}
    return values


def _own_traffic(parts: Parts, rollout: Rollout, gateway: GatewayState, slot: SlotName) -> dict[str, int]:
    """What the old slot counted since the version in it got its traffic; nothing where that is not known.

    The gateway's counters belong to the slot: what former versions left in them says nothing about this one. When the
    gateway was started after that, all that it has counted is this version's.
    """
    now, since = gateway.of(rollout.model, slot).counted, None
    for row in parts.ledger.history(rollout.model, 200):
        if row.event != "traffic" or row.rollout_id == rollout.id:
            continue
        if not row.detail["weights"].get(slot):
            break
        since = row
    if since is None:
        return {}
    up = gateway.uptime_seconds
    if up is not None and up < (parts.clock.now() - since.at).total_seconds():
        return now
    began = (since.detail.get("counters") or {}).get(slot, {})
    if began.keys() != now.keys():
        return {}
    return {name: now[name] - began[name] for name in now} if all(now[name] >= began[name] for name in now) else now


def _wants_metrics(rollout: Rollout) -> bool:
    checks = rollout.policy.checks
    compared = (checks.latency_p50_ratio, checks.latency_p99_ratio, checks.max_rejected_share)
    return any(one is not None for one in compared) or mirrors(rollout)


def _read(parts: Parts, rollout: Rollout) -> tuple[dict[str, SlotMetrics], str]:
    places = {slot.slot: slot.address for slot in parts.store.slots(rollout.model)}
    found: dict[str, SlotMetrics] = {}
    problem = ""
    for side, slot in zip(_SIDES, (rollout.slot, rollout.previous_slot), strict=True):
        if slot is None:
            continue
        try:
            found[side] = parts.probe.metrics(places[slot])
        except SlipwayError as error:
            problem = f"{slot} slot: {error}"
    return found, problem


def renewed_baseline(parts: Parts, rollout: Rollout) -> tuple[Rollout, SlotCounts]:
    """What the slots counted since the baseline, and the rollout with a baseline for what had none yet."""
    if not _wants_metrics(rollout):
        return rollout, SlotCounts()
    found, problem = _read(parts, rollout)
    missing = {side: metrics.as_dict() for side, metrics in found.items() if side not in rollout.baseline}
    if missing:
        rollout = replace(rollout, baseline={**rollout.baseline, **missing})
    before = {side: SlotMetrics.from_dict(rollout.baseline[side]) for side in found}
    counts = {side: metrics.since(before[side]) for side, metrics in found.items()}
    restarted = "new" in found and found["new"].started_at != before["new"].started_at
    return rollout, SlotCounts(counts.get("new"), counts.get("old"), restarted, problem)


def shadow_checks(rollout: Rollout, slots: SlotCounts) -> tuple[Check, ...]:
    """Mirrored requests that failed or were refused; nobody saw them."""
    if not mirrors(rollout):
        return ()
    if slots.new is None or slots.old is None:
        return (Check("shadow_errors", Verdict.ERROR, slots.problem or "the slot was not asked"),)
    answered, failed = slots.new.shadow_requests, slots.new.shadow_errors
    policy = rollout.policy
    limit, least = max(policy.max_error_rate, policy.checks.max_disagreement), policy.min_requests
    # Nobody saw them, so the limit is that of the answers that differ; in its traffic the version has to do better.
    found = error_rate(answered + failed, failed, limit=limit, min_requests=least)
    asked = answered + slots.new.shadow_refused
    refused = _refusals(rollout, (asked, slots.new.shadow_refused), slots.old)
    return (*_restart(slots), replace(found, name="shadow_errors"), *refused)


def _refusals(rollout: Rollout, new: tuple[int, int], old: SlotMetrics) -> list[Check]:
    """Requests (asked, refused) that the new version does not take, beside those of the old one.

    Only where they are mirrored: with traffic of their own, a client that is pinned to one side and makes mistakes
    would fail a version for it.
    """
    policy = rollout.policy
    both = new, (old.requests + old.refused, old.refused)
    found = refusals(*both, limit=policy.max_error_rate, alpha=policy.checks.alpha, least=policy.min_requests)
    return [found] if policy.min_requests or found.verdict is not Verdict.INCONCLUSIVE else []


def traffic_checks(
    rollout: Rollout, slots: SlotCounts, gateway: GatewayState | None
) -> tuple[tuple[Check, ...], Rollout]:
    """Errors, latency and saturation of the new slot in its part of the traffic."""
    if gateway is None:
        return (Check("error_rate", Verdict.ERROR, "the gateway does not answer"),), rollout
    errors, rollout = _errors(rollout, gateway)
    return (*_restart(slots), errors, *_slot_checks(rollout, slots)), rollout


def _restart(slots: SlotCounts) -> tuple[Check, ...]:
    if not slots.new_restarted:
        return ()
    return (Check("stability", Verdict.FAIL, "the new version's process was restarted while it was watched"),)


def _errors(rollout: Rollout, gateway: GatewayState) -> tuple[Check, Rollout]:
    policy, alone = rollout.policy, rollout.previous_slot is None
    new = _since(rollout, "new", rollout.slot, gateway)
    least = 0 if alone else policy.min_requests  # a first version has nothing to lose, and no traffic before it is live
    old = (0, 0)
    if rollout.previous_slot is not None:
        seen = _since(rollout, "old", rollout.previous_slot, gateway)
        if seen[0] >= max(1, policy.min_requests):  # kept for the steps in which the old slot gets too little
            rollout = replace(rollout, evidence={**rollout.evidence, "old_errors": list(seen)})
        old = tuple(rollout.evidence.get("old_errors") or _formerly(rollout))
    limit, alpha = policy.max_error_rate, policy.checks.alpha
    return error_rate(*new, limit=limit, min_requests=least, old=old, alpha=alpha), rollout


def _formerly(rollout: Rollout) -> tuple[int, int]:
    """The old version's requests and errors before it shared its traffic."""
    before = rollout.baseline.get("formerly", {})
    return max(0, before.get("requests", 0) - before.get("refused", 0)), before.get("errors", 0)


def _since(rollout: Rollout, side: str, slot: SlotName, gateway: GatewayState) -> tuple[int, int]:
    """Requests without refused ones, which are no evidence of anything, and errors."""
    stats: BackendStats = gateway.of(rollout.model, slot)
    before: Mapping[str, int] = rollout.baseline.get("gateway", {}).get(side, {})
    if stats.requests < before.get("requests", 0):
        before = {}  # the gateway was restarted and counts from zero
    refused = stats.refused - before.get("refused", stats.refused if before else 0)  # a former release's has none
    return max(0, stats.requests - before.get("requests", 0) - refused), stats.errors - before.get("errors", 0)


def _slot_checks(rollout: Rollout, slots: SlotCounts) -> list[Check]:
    policy, checks = rollout.policy, rollout.policy.checks
    if rollout.previous_slot is None or not _wants_metrics(rollout):
        return []
    if slots.new is None or slots.old is None:
        return [Check("metrics", Verdict.ERROR, slots.problem or "a slot was not asked")]
    least = policy.min_requests
    found = []
    if len(target_weights(rollout)) == 2 and rollout.phase is Phase.SHIFTING:
        for name, share, ratio in (
            ("latency_p50", 0.5, checks.latency_p50_ratio),
            ("latency_p99", 0.99, checks.latency_p99_ratio),
        ):
            if ratio is not None:
                args = {"share": share, "ratio": ratio, "policy": checks, "least": least}
                found.append(latency(name, slots.new, slots.old, **args))  # type: ignore[arg-type]
    if checks.max_rejected_share is not None:
        limit = checks.max_rejected_share
        found.append(saturation(slots.new, slots.old, limit=limit, alpha=checks.alpha, least=least))
    return found if least else [check for check in found if check.verdict is not Verdict.INCONCLUSIVE]
