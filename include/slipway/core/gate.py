"""Whether a challenger may be registered: paired bootstrap on the same held-out rows.

Both models are scored on the same resampled rows, so what they share cancels out. A retrain that drift asked for must
be better (lower bound of the improvement above 0); any other must not be worse: lower bound above minus the margin and
a point estimate that is not negative. The very first version has only the spec's floor to pass.

The lower bound is the percentile bound of Efron and Tibshirani, An Introduction to the Bootstrap (1993), ch. 13; for
rows with an order in time it resamples circular blocks (Politis and Romano, 1992). Slices are tested with Holm's
step-down correction (1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slipway.core.metrics import GREATER_IS_BETTER, Predictions, row_statistics, score, value_of_sums
from slipway.core.verdict import Verdict
from slipway.spec import GatePolicy, Metric

__all__ = ["SUPERIORITY_REASONS", "GateResult", "judge", "judge_first"]

SUPERIORITY_REASONS = frozenset({"drift", "manual-better"})
Rule = Literal["floor", "superiority", "non_inferiority"]
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class GateResult:
    """The verdict with its evidence.

    Attributes:
        champion, challenger: the metric on the held-out rows; champion is None for a first version.
        improvement: of the challenger, in the metric's unit; positive is better for every metric.
        lower_bound: one-sided, at `confidence`.
        slices: the guard's outcome per slice of rows.
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
    slices: tuple[Mapping[str, Any], ...] = ()

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
    seed: int = 0,
) -> GateResult:
    """Champion against challenger on the same rows.

    Args:
        truth: (n,) class indices or numbers; `champion` and `challenger` answer the same rows in the same order.
        reason: why the challenger was trained; those in `SUPERIORITY_REASONS` ask for superiority.
        ordered: the rows are in time order and neighbours are alike, so blocks of n^(1/3) rows are resampled.
        slices: (n,) masks by name; those with fewer than `slice_min_rows` rows are not judged.
    """
    rows = len(truth)
    block = max(1, math.ceil(rows ** (1 / 3))) if ordered else 1
    old = row_statistics(metric.name, truth, champion)
    new = row_statistics(metric.name, truth, challenger)
    sign = 1.0 if GREATER_IS_BETTER[metric.name] else -1.0
    before, after = (float(value_of_sums(metric.name, one.sum(axis=0, keepdims=True))[0]) for one in (old, new))
    masks = {name: mask for name, mask in (slices or {}).items() if int(mask.sum()) >= policy.slice_min_rows}
    overall, per_slice = _resample(metric.name, old, new, masks, policy.resamples, block, seed)
    improvement = sign * (after - before)
    finite = sign * overall[np.isfinite(overall)]
    bound = float(np.quantile(finite, 1 - policy.confidence)) if finite.size else math.nan
    superiority = reason in SUPERIORITY_REASONS
    margin = 0.0 if superiority else policy.margin * abs(before)
    guarded = _guard_slices(metric.name, old, new, masks, per_slice, sign, policy)
    passed, said = _conclude(superiority, improvement, bound, margin, reason)
    harmed = [str(one["slice"]) for one in guarded if one["verdict"] == Verdict.FAIL.value]
    if harmed:
        said = (*said, f"more than {policy.slice_max_loss:.0%} worse in {', '.join(harmed)}")
    return GateResult(
        verdict=Verdict.PASS if passed and not harmed else Verdict.FAIL,
        rule="superiority" if superiority else "non_inferiority",
        reason=reason,
        reasons=said,
        metric=metric.name,
        rows=rows,
        challenger=after,
        champion=before,
        improvement=improvement,
        lower_bound=bound,
        margin=margin,
        confidence=policy.confidence,
        resamples=policy.resamples,
        block_rows=block,
        slices=tuple(guarded),
    )


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
    resamples: int,
    block: int,
    seed: int,
) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
    """(resamples,) differences new - old, over all rows and per slice, from the same draws."""
    rows = len(old)
    random = np.random.default_rng(seed)
    whole: list[NDArray[np.float64]] = []
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in masks}
    chunk = max(1, _CHUNK_CELLS // max(rows, 1))
    for first in range(0, resamples if rows else 0, chunk):
        counts = _draw_counts(random, min(chunk, resamples - first), rows, block)
        whole.append(value_of_sums(metric, counts @ new) - value_of_sums(metric, counts @ old))
        for name, mask in masks.items():
            some = counts[:, mask]
            parts[name].append(value_of_sums(metric, some @ new[mask]) - value_of_sums(metric, some @ old[mask]))
    empty = np.array([np.nan])
    return (
        np.concatenate(whole) if whole else empty,
        {name: np.concatenate(found) if found else empty for name, found in parts.items()},
    )


def _draw_counts(random: np.random.Generator, draws: int, rows: int, block: int) -> NDArray[np.float64]:
    """(draws, rows) how often each row is in each resample; circular blocks of `block` rows."""
    starts = random.integers(0, rows, (draws, math.ceil(rows / block)))
    flat = (starts + rows * np.arange(draws)[:, None]).ravel()
    counts = np.bincount(flat, minlength=draws * rows).reshape(draws, rows).astype(np.float64)
    if block > 1:
        counts = np.asarray(sum(np.roll(counts, shift, axis=1) for shift in range(block)))
    return counts


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
