"""Whether a challenger may be registered: paired bootstrap on the same held-out rows.

Both models are scored on the same resampled rows, so what they share cancels out. A retrain that drift asked for must
be better (lower bound of the improvement above 0); any other must not be worse: lower bound above minus the margin and
a point estimate that is not negative. The very first version has only the spec's floor to pass.

A retrain that drift asked for must also heal, see `recovery`.

The lower bound is a percentile of the bootstrap (`resample.lower_level`); rows with an order in time are resampled in
blocks. Slices are tested with Holm's step-down correction (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slipway.core.metrics import GREATER_IS_BETTER, Predictions, known_classes, row_statistics, score, value_of_sums
from slipway.core.recovery import Recovery, heal
from slipway.core.resample import block_length, informative_blocks, lower_level, resamples
from slipway.core.verdict import Verdict
from slipway.spec import GatePolicy, Metric

__all__ = ["SUPERIORITY_REASONS", "GateResult", "judge", "judge_first", "shown_worse"]

SUPERIORITY_REASONS = frozenset({"drift", "manual-better"})
Rule = Literal["floor", "superiority", "non_inferiority"]
_HISTOGRAM_BINS = 40


@dataclass(frozen=True)
class GateResult:
    """The verdict with its evidence.

    Attributes:
        champion, challenger: the metric on the held-out rows; champion is None for a first version.
        improvement: of the challenger, in the metric's unit; positive is better for every metric.
        lower_bound: one-sided, at `confidence`.
        differing_rows: rows on which the two do not do equally well; only they tell them apart.
        baseline, remaining_loss: where a recovery was asked for, see `Recovery`; the loss as measured.
        remaining_loss_bound: the loss may be as large as this; one-sided, at `confidence`.
        slices: the guard's outcome per slice of rows.
        histogram: how the improvement fell out over the resamples: bin edges, and one count fewer.
    """

    verdict: Verdict
    rule: Rule
    reason: str
    reasons: tuple[str, ...]
    metric: str
    rows: int
    challenger: float
    champion: float | None = None
    improvement: float | None = None
    lower_bound: float | None = None
    margin: float | None = None
    confidence: float | None = None
    resamples: int = 0
    block_rows: int = 1
    differing_rows: int = 0
    baseline: float | None = None
    remaining_loss: float | None = None
    remaining_loss_bound: float | None = None
    slices: tuple[Mapping[str, Any], ...] = ()
    histogram: tuple[tuple[float, ...], tuple[int, ...]] = ((), ())

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict.value,
            "rule": self.rule,
            "reason": self.reason,
            "reasons": list(self.reasons),
            "metric": self.metric,
            "rows": self.rows,
            "challenger": _plain(self.challenger),
            "champion": _plain(self.champion),
            "improvement": _plain(self.improvement),
            "lower_bound": _plain(self.lower_bound),
            "margin": _plain(self.margin),
            "confidence": self.confidence,
            "resamples": self.resamples,
            "block_rows": self.block_rows,
            "differing_rows": self.differing_rows,
            "baseline": _plain(self.baseline),
            "remaining_loss": _plain(self.remaining_loss),
            "remaining_loss_bound": _plain(self.remaining_loss_bound),
            "slices": [dict(one) for one in self.slices],
        }


def _plain(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else round(float(number), 9)


def judge_first(metric: Metric, truth: NDArray[Any], challenger: Predictions, reason: str) -> GateResult:
    """The gate of a first version: its metric on the held-out rows against the spec's floor."""
    value = score(metric.name, truth, challenger)
    reached = value >= metric.floor if metric.greater_is_better else value <= metric.floor
    verdict = Verdict.PASS if reached and len(truth) else Verdict.FAIL
    said = f"{metric.name} {value:.6g} on {len(truth)} held-out rows, floor {metric.floor:g}"
    return GateResult(
        verdict=verdict,
        rule="floor",
        reason=reason,
        reasons=(f"first version: {said}",),
        metric=metric.name,
        rows=len(truth),
        challenger=value,
    )


def judge(
    metric: Metric,
    policy: GatePolicy,
    truth: NDArray[Any],
    champion: Predictions,
    challenger: Predictions,
    reason: str,
    *,
    ordered: bool = False,
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    recovery: Recovery | None = None,
    seed: int = 0,
) -> GateResult:
    """Champion against challenger on the same rows.

    Args:
        truth: (n,) class indices or numbers; `champion` and `challenger` answer the same rows in the same order.
        reason: why the challenger was trained; those in `SUPERIORITY_REASONS` ask for superiority.
        ordered: the rows are in time order and neighbours are alike, so they are resampled in blocks.
        slices: (n,) masks by name; those with fewer than `slice_min_rows` rows are not judged.
        recovery: what the challenger has to come back to; None asks for none.
    """
    old, new = _paired_statistics(metric.name, truth, champion, challenger)
    difference = (new - old)[:, 1:].sum(axis=1)  # 0 where both do equally well, whatever the metric
    block = block_length(difference) if ordered else 1
    sign = 1.0 if GREATER_IS_BETTER[metric.name] else -1.0
    before, after = (float(value_of_sums(metric.name, one.sum(axis=0, keepdims=True))[0]) for one in (old, new))
    masks = {name: mask for name, mask in (slices or {}).items() if int(mask.sum()) >= policy.slice_min_rows}
    overall, alone, per_slice = _resample(metric.name, old, new, masks, policy.resamples, block, seed)
    improvement = sign * (after - before) + 0.0  # no -0
    finite = sign * overall[np.isfinite(overall)] + 0.0
    level = lower_level(policy.confidence, informative_blocks(difference, block), policy.resamples)
    bound = float(np.quantile(finite, level, method="lower")) if finite.size else math.nan
    superiority = reason in SUPERIORITY_REASONS
    margin = 0.0 if superiority else policy.margin * abs(before)
    guarded = _guard_slices(metric.name, old, new, masks, per_slice, sign, policy)
    passed, said = _conclude(superiority, improvement, bound, margin, reason)
    harmed = [str(one["slice"]) for one in guarded if one["verdict"] == Verdict.FAIL.value]
    if harmed:
        said = (*said, f"more than {policy.slice_max_loss:.0%} worse in {', '.join(harmed)}")
    level = lower_level(policy.confidence, len(truth) // block, policy.resamples)
    healing = heal(metric.name, after, alone, level, recovery) if recovery else None
    if healing is not None and not healing.healed:
        said = (*said, healing.said)
    return GateResult(
        verdict=Verdict.PASS if passed and not harmed and (healing is None or healing.healed) else Verdict.FAIL,
        rule="superiority" if superiority else "non_inferiority",
        reason=reason,
        reasons=said,
        metric=metric.name,
        rows=len(truth),
        challenger=after,
        champion=before,
        improvement=improvement,
        lower_bound=bound,
        margin=margin,
        confidence=policy.confidence,
        resamples=policy.resamples,
        block_rows=block,
        differing_rows=int(np.count_nonzero(difference)),
        baseline=None if recovery is None else recovery.baseline,
        remaining_loss=healing.loss if healing else None,
        remaining_loss_bound=healing.bound if healing else None,
        slices=tuple(guarded),
        histogram=_histogram(finite),
    )


def _paired_statistics(
    metric: str, truth: NDArray[Any], champion: Predictions, challenger: Predictions
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    classes = known_classes(truth, champion, challenger)
    return row_statistics(metric, truth, champion, classes), row_statistics(metric, truth, challenger, classes)


def _histogram(values: NDArray[np.float64]) -> tuple[tuple[float, ...], tuple[int, ...]]:
    if not values.size:
        return (), ()
    counts, edges = np.histogram(values, _HISTOGRAM_BINS)
    return tuple(float(edge) for edge in edges), tuple(int(count) for count in counts)


def shown_worse(
    metric: Metric,
    policy: GatePolicy,
    truth: NDArray[Any],
    champion: Predictions,
    challenger: Predictions,
    seed: int = 0,
) -> bool:
    """Whether even the upper bound of the challenger's improvement on these rows lies below 0."""
    old, new = _paired_statistics(metric.name, truth, champion, challenger)
    overall, _, _ = _resample(metric.name, old, new, {}, policy.resamples, 1, seed)
    drawn = (1.0 if GREATER_IS_BETTER[metric.name] else -1.0) * overall[np.isfinite(overall)]
    differing = informative_blocks((new - old)[:, 1:].sum(axis=1), 1)
    return bool(drawn.size) and bool(np.quantile(drawn, 1 - lower_level(policy.confidence, differing, len(drawn))) < 0)


def _conclude(
    superiority: bool, improvement: float, bound: float, margin: float, reason: str
) -> tuple[bool, tuple[str, ...]]:
    numbers = f"improvement {improvement:+.6g}, lower bound {bound:+.6g}"
    if superiority:  # comparisons are written so that nan never passes
        passed = bound > 0
        return passed, (f"{'better' if passed else 'not shown to be better'} ({reason} asks for it): {numbers}",)
    passed = bound >= -margin and improvement >= -1e-12
    return passed, (f"{'not worse' if passed else 'not shown to be no worse'} (margin {margin:.6g}): {numbers}",)


def _resample(
    metric: str,
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    masks: Mapping[str, NDArray[np.bool_]],
    draws: int,
    block: int,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """(draws,) differences new - old over all rows, values of new, and differences per slice, from the same draws."""
    whole: list[NDArray[np.float64]] = []
    alone: list[NDArray[np.float64]] = []
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in masks}
    for counts in resamples(len(old), draws, block, seed):
        alone.append(value_of_sums(metric, counts @ new))
        whole.append(alone[-1] - value_of_sums(metric, counts @ old))
        for name, mask in masks.items():
            some = counts[:, mask]
            parts[name].append(value_of_sums(metric, some @ new[mask]) - value_of_sums(metric, some @ old[mask]))
    empty = np.array([np.nan])
    return (
        np.concatenate(whole) if whole else empty,
        np.concatenate(alone) if alone else empty,
        {name: np.concatenate(found) if found else empty for name, found in parts.items()},
    )


def _guard_slices(
    metric: str,
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    masks: Mapping[str, NDArray[np.bool_]],
    differences: Mapping[str, NDArray[np.float64]],
    sign: float,
    policy: GatePolicy,
) -> list[dict[str, Any]]:
    """Fails a slice that is shown to be worse by more than the allowed share, over all slices at once (Holm)."""
    found: list[dict[str, Any]] = []
    for name, mask in masks.items():
        before = float(value_of_sums(metric, old[mask].sum(axis=0, keepdims=True))[0])
        after = float(value_of_sums(metric, new[mask].sum(axis=0, keepdims=True))[0])
        allowed = -policy.slice_max_loss * abs(before)
        drawn = sign * differences[name]
        drawn = drawn[np.isfinite(drawn)]
        p_value = float((1 + (drawn >= allowed).sum()) / (1 + drawn.size))  # of "no worse than allowed"
        found.append(
            {
                "slice": name,
                "rows": int(mask.sum()),
                "champion": _plain(before),
                "challenger": _plain(after),
                "p_value": round(p_value, 6),
                "verdict": Verdict.PASS.value,
            }
        )
    found.sort(key=lambda one: float(one["p_value"]))
    for rank, one in enumerate(found):
        if one["p_value"] > (1 - policy.confidence) / (len(found) - rank):
            break
        one["verdict"] = Verdict.FAIL.value
    return found
