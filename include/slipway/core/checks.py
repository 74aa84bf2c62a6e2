"""Checks on a new version on its way to the traffic; each gives a verdict, and the worst one decides.

Refused requests (4xx) are the client's own and no errors; they only tell when one version refuses what the other takes.
429 is load and only counts as such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from slipway.core.sequential import (
    Gap,
    ks_distance,
    share_above,
    share_upper_bound,
    spend,
    total_variation,
    worsening,
)
from slipway.core.slot_metrics import SlotMetrics
from slipway.core.verdict import Check, Verdict, worst
from slipway.policy import ChecksPolicy

__all__ = [
    "Pair",
    "SideLog",
    "disagreement",
    "divergence",
    "error_rate",
    "judge",
    "latency",
    "quality",
    "readiness",
    "refusals",
    "saturation",
    "slower",
]

Prediction = str | float
_FEWEST_ERRORS = 3
_FEWEST_LABELS = 50
_TOLERANCE = 0.5  # of the old predictions' standard deviation: numbers closer than this count as the same


@dataclass(frozen=True)
class SideLog:
    """What one version answered in the interval: its predictions, and (prediction, label) where labels came."""

    predictions: Sequence[Prediction] = ()
    labelled: Sequence[tuple[Prediction, Prediction]] = ()


@dataclass(frozen=True)
class Pair:
    """One row as both versions predicted it, with its label where one is known."""

    old: Prediction
    new: Prediction
    label: Prediction | None = None


def judge(checks: Sequence[Check]) -> tuple[Verdict, str]:
    """The verdict of all checks together, and the reason of the first check that gave it."""
    verdict = worst(check.verdict for check in checks)
    reasons = (f"{check.name}: {check.reason}" for check in checks if check.verdict is verdict)
    return verdict, next(reasons, "nothing was checked")


def readiness(ready: bool | None, detail: str) -> Check:
    """The slot still answers its golden rows; `ready` is None when it could not be asked."""
    if ready is None:
        return Check("readiness", Verdict.ERROR, detail or "the slot could not be asked")
    return Check("readiness", Verdict.PASS if ready else Verdict.FAIL, detail or ("ready" if ready else "not ready"))


def error_rate(
    requests: int, errors: int, *, limit: float, min_requests: int, old: tuple[int, int] = (0, 0), alpha: float = 0.01
) -> Check:
    """Share of 5xx among a slot's answers in the interval, at most `limit` above the old slot's.

    It fails by its estimate, from three errors on; where the old slot (requests, errors) has errors itself, only when
    no luck explains the difference. It passes only when so few errors leave no more than the limit possible with 99 %
    confidence; between the two it is inconclusive. A `min_requests` of 0 asks for no evidence.

    >>> error_rate(1000, 2, limit=0.01, min_requests=100).verdict
    <Verdict.PASS: 'pass'>
    >>> error_rate(10, 0, limit=0.01, min_requests=100).verdict
    <Verdict.INCONCLUSIVE: 'inconclusive'>
    >>> error_rate(10, 3, limit=0.01, min_requests=100).verdict
    <Verdict.FAIL: 'fail'>
    """
    allowed = min(1.0, limit + (old[1] / old[0] if old[0] else 0.0))
    evidence = {"requests": requests, "errors": errors, "limit": allowed, "min_requests": min_requests}
    reason = f"{errors} of {requests} requests failed, the limit is {allowed:.2%}"
    many = errors >= (_FEWEST_ERRORS if min_requests else 1) and errors > allowed * max(requests, min_requests)
    if many and (not old[1] or share_above(errors, requests, limit + share_upper_bound(old[1], old[0])) >= 1 / alpha):
        return Check("error_rate", Verdict.FAIL, reason, evidence)
    if requests < min_requests:
        reason = f"{requests} of at least {min_requests} requests seen"
        return Check("error_rate", Verdict.INCONCLUSIVE, reason, evidence)
    if many or (min_requests and share_upper_bound(errors, requests) > allowed):
        possible = share_upper_bound(errors, requests)
        reason = f"{reason}, and {possible:.2%} are still possible"
        return Check("error_rate", Verdict.INCONCLUSIVE, reason, evidence)
    return Check("error_rate", Verdict.PASS, reason, evidence)


def latency(
    name: str, new: SlotMetrics, old: SlotMetrics, *, share: float, ratio: float, policy: ChecksPolicy, least: int
) -> Check:
    """Whether more than the rest of `share` took longer in the new slot than `ratio` times the old slot's quantile.

    The bound is rounded up to the histogram's next one, so that no bucket's width can fail a version. Beyond the last
    one no times are known: then the shares above it are compared. A quantile up there is None in the evidence.
    """
    before = old.quantile_seconds(share)
    evidence: dict[str, object] = {"new_requests": new.answered, "old_requests": old.answered, "min_requests": least}
    if before is None or min(new.answered, old.answered) < max(1, least):
        reason = f"{new.answered} and {old.answered} of at least {max(1, least)} requests timed in new and old slot"
        return Check(name, Verdict.INCONCLUSIVE, reason, evidence)
    wanted = max(before * ratio, policy.latency_floor_ms / 1000)
    slower, bound = new.slower_than(wanted)
    limit = 1 - share
    if wanted > bound:
        limit = max(limit, share_upper_bound(old.slower_than(wanted)[0], old.answered))
    after = new.quantile_seconds(share) or 0.0
    found = {"new_ms": _finite_ms(after), "old_ms": _finite_ms(before), "bound_ms": bound * 1e3, "slower": slower}
    told = " beside ".join(_told_ms(seconds, bound) for seconds in (after, before))
    reason = f"{told}, {slower} of {new.answered} above {bound * 1e3:g} ms"
    return _share(name, slower, new.answered, limit, policy.alpha, reason, evidence | found)


def _finite_ms(seconds: float) -> float | None:
    return seconds * 1e3 if isfinite(seconds) else None


def _told_ms(seconds: float, bound: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if isfinite(seconds) else f"more than {bound * 1e3:g} ms"


def slower(name: str, new_ms: Sequence[float], old_ms: Sequence[float], ratio: float, policy: ChecksPolicy) -> Check:
    """Whether more than half of the new times are above `ratio` times the old median."""
    before, after = sorted(old_ms)[len(old_ms) // 2], sorted(new_ms)[len(new_ms) // 2]
    bound = max(before * ratio, policy.latency_floor_ms)
    above = sum(one > bound for one in new_ms)
    evidence = {"new_ms": after, "old_ms": before, "bound_ms": bound, "slower": above, "requests": len(new_ms)}
    reason = f"{after:.2f} ms beside {before:.2f} ms, {above} of {len(new_ms)} above {bound:.2f} ms"
    return _share(name, above, len(new_ms), 0.5, policy.alpha, reason, evidence)


def saturation(new: SlotMetrics, old: SlotMetrics, *, limit: float, alpha: float, least: int) -> Check:
    """Share of requests that the new slot refused with 429, at most `limit` above the old slot's."""
    asked, asked_old = new.requests + new.rejected, old.requests + old.rejected
    allowed = min(1.0, limit + (old.rejected / asked_old if asked_old else 0.0))
    evidence = {"requests": asked, "rejected": new.rejected, "limit": allowed, "in_flight": new.in_flight}
    reason = f"{new.rejected} of {asked} requests were too many, the limit is {allowed:.2%}"
    if asked < least:
        return Check("saturation", Verdict.INCONCLUSIVE, f"{asked} of at least {least} requests seen", evidence)
    return _share("saturation", new.rejected, asked, allowed, alpha, reason, evidence)


def refusals(new: tuple[int, int], old: tuple[int, int], *, limit: float, alpha: float, least: int) -> Check:
    """Share of requests that the new slot refused as invalid (4xx without 429), at most `limit` above the old slot's.

    The clients' own mistakes meet both slots (asked, refused) alike, so only luck and the versions can part them.

    >>> refusals((1000, 100), (9000, 900), limit=0.005, alpha=0.01, least=100).verdict
    <Verdict.PASS: 'pass'>
    >>> refusals((1000, 200), (9000, 900), limit=0.005, alpha=0.01, least=100).verdict
    <Verdict.FAIL: 'fail'>
    """
    (asked, refused), (asked_old, refused_old) = new, old
    evidence: dict[str, object] = {"requests": asked, "refused": refused, "old_requests": asked_old}
    if min(asked, asked_old) < max(1, least):
        reason = f"{asked} and {asked_old} of at least {max(1, least)} requests seen in new and old slot"
        return Check("refusals", Verdict.INCONCLUSIVE, reason, evidence)
    allowed = min(1.0, limit + share_upper_bound(refused_old, asked_old))
    evidence |= {"old_refused": refused_old, "limit": allowed}
    reason = f"{refused} of {asked} requests were refused beside {refused_old} of {asked_old}"
    return _share("refusals", refused, asked, allowed, alpha, f"{reason}, the limit is {allowed:.2%}", evidence)


def _share(
    name: str, hits: int, trials: int, limit: float, alpha: float, reason: str, evidence: Mapping[str, object]
) -> Check:
    if share_above(hits, trials, limit) >= 1 / alpha:
        return Check(name, Verdict.FAIL, reason, evidence)
    return Check(name, Verdict.PASS if hits <= limit * trials else Verdict.INCONCLUSIVE, reason, evidence)


def divergence(new: SideLog, old: SideLog, policy: ChecksPolicy, look: int) -> Check:
    """How far the two slots' predictions differ in distribution; `look` counts from 1 how often it was asked.

    It fails when the distance is above its limit with certainty, so neither noise nor a trifle in much traffic does.
    """
    limit, least = policy.max_divergence or 1.0, policy.min_rows
    counts = (len(new.predictions), len(old.predictions))
    evidence: dict[str, object] = {"new_rows": counts[0], "old_rows": counts[1], "limit": limit, "look": look}
    if min(counts) < least:
        reason = f"{counts[0]} and {counts[1]} of at least {least} logged rows of new and old version"
        return Check("divergence", Verdict.INCONCLUSIVE, reason, evidence)
    alpha = spend(policy.alpha, look)
    if isinstance(new.predictions[0], str):
        gap = total_variation(new.predictions, old.predictions, alpha)
    else:
        gap = ks_distance([float(p) for p in new.predictions], [float(p) for p in old.predictions], alpha)
    evidence |= {"distance": gap.estimate, "surely_above": max(0.0, gap.lower)}
    reason = f"the predictions' distributions are {gap.estimate:.3f} apart, the limit is {limit:g}"
    return Check("divergence", _verdict(gap, limit), reason, evidence)


def _verdict(gap: Gap, limit: float) -> Verdict:
    if gap.lower > limit:
        return Verdict.FAIL
    return Verdict.PASS if gap.estimate <= limit else Verdict.INCONCLUSIVE


def quality(new: SideLog, old: SideLog, policy: ChecksPolicy) -> Check | None:
    """Loss on the labels that came for either side; None where too few came and none are waited for.

    The evidence's `surely_not_worse` says whether the labels settle the matter.
    """
    margin, counts = policy.max_quality_loss, (len(new.labelled), len(old.labelled))
    if margin is None:
        return None
    least = max(policy.min_labels, _FEWEST_LABELS)
    evidence: dict[str, object] = {"new_labels": counts[0], "old_labels": counts[1]}
    if min(counts) < least:
        reason = f"{counts[0]} and {counts[1]} of at least {least} labels of new and old version"
        return Check("quality", Verdict.INCONCLUSIVE, reason, evidence) if policy.min_labels else None
    after, before = _losses(new.labelled), _losses(old.labelled)
    unit = 1.0 if isinstance(new.labelled[0][0], str) else max(sum(before) / len(before), 1e-12)
    gap = worsening([loss / unit for loss in after], [loss / unit for loss in before], policy.alpha, max(margin, 0.05))
    check = _loss_check("quality", gap, margin, evidence)
    return check if check.verdict is not Verdict.INCONCLUSIVE or policy.min_labels else None


def _loss_check(name: str, gap: Gap, margin: float, evidence: dict[str, object]) -> Check:
    evidence |= {"worse_by": gap.estimate, "surely_not_worse": gap.upper <= margin, "limit": margin}
    reason = f"worse on labels by {gap.estimate:+.3f} ({gap.lower:+.3f} to {gap.upper:+.3f}), the limit is {margin:g}"
    return Check(name, _verdict(gap, margin), reason, evidence)


def _losses(labelled: Sequence[tuple[Prediction, Prediction]]) -> list[float]:
    return [_loss(prediction, label) for prediction, label in labelled]


def _loss(prediction: Prediction, label: Prediction) -> float:
    if isinstance(prediction, str) or isinstance(label, str):
        return float(prediction != label)
    return abs(prediction - label)


def disagreement(name: str, pairs: Sequence[Pair], policy: ChecksPolicy, least: int) -> Check:
    """How many rows both versions predict differently; where labels settle who is right, they decide instead.

    A version that learned something new disagrees with the old one, and may be right to.
    """
    different = _different(pairs)
    evidence: dict[str, object] = {"rows": len(pairs), "different": different, "limit": policy.max_disagreement}
    if len(pairs) < least or not pairs:
        reason = f"{len(pairs)} of at least {max(1, least)} rows compared"
        return Check(name, Verdict.INCONCLUSIVE, reason, evidence)
    labelled = [pair for pair in pairs if pair.label is not None]
    if policy.max_quality_loss is not None and len(labelled) >= _FEWEST_LABELS:
        judged = _on_labels(name, labelled, policy, evidence)
        if judged.verdict is Verdict.FAIL or judged.evidence["surely_not_worse"]:
            return judged
    reason = f"{different} of {len(pairs)} rows are predicted differently, the limit is {policy.max_disagreement:.0%}"
    return _share(name, different, len(pairs), policy.max_disagreement, policy.alpha, reason, evidence)


def _on_labels(name: str, pairs: Sequence[Pair], policy: ChecksPolicy, evidence: dict[str, object]) -> Check:
    both = [(_loss(p.new, p.label), _loss(p.old, p.label)) for p in pairs if p.label is not None]
    unit = 1.0 if isinstance(pairs[0].new, str) else max(sum(old for _, old in both) / len(both), 1e-12)
    margin = policy.max_quality_loss or 0.0
    gap = worsening([(new - old) / unit for new, old in both], None, policy.alpha, max(margin, 0.05))
    return _loss_check(name, gap, margin, evidence | {"labels": len(both)})


def _different(pairs: Sequence[Pair]) -> int:
    numbers = [float(pair.old) for pair in pairs if not isinstance(pair.old, str)]
    if len(numbers) < len(pairs) or not pairs:
        return sum(pair.old != pair.new for pair in pairs)
    mean = sum(numbers) / len(numbers)
    spread = (sum((number - mean) ** 2 for number in numbers) / len(numbers)) ** 0.5
    return sum(abs(float(pair.new) - float(pair.old)) > _TOLERANCE * spread + 1e-12 for pair in pairs)
