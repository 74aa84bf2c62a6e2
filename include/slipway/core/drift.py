"""Has a window of traffic drifted from the reference? Statistics, thresholds from the reference, verdict.

Numbers have two statistics, the Kolmogorov-Smirnov distance and the Wasserstein distance in standard deviations of the
reference; categories have the Jensen-Shannon distance (natural logarithm, as SciPy's). Thresholds come from the
reference itself: many pairs of a reference and a window of the same sizes are drawn from it, and the quantile of the
largest scaled statistic bounds the false alarms of the whole window. Both sides are drawn, so a small reference raises
its own thresholds; a reference in time order raises them by what its rows have in common with their neighbours
(`slipway.core.null`). What no column shows by itself, a domain classifier may (`slipway.core.domain`). A floor on the
effect keeps large windows from flagging trifles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from slipway.core.bins import METHODS, Bins, Kind
from slipway.core.domain import DomainClassifier
from slipway.core.null import correlation_time, max_t_thresholds, resample_counts
from slipway.spec import DriftPolicy

__all__ = [
    "Column",
    "ColumnDrift",
    "DriftResult",
    "DriftVerdict",
    "Reference",
    "confirmed",
    "effect_floors",
    "inconclusive",
    "judge_window",
    "mean_shift_score",
    "statistic",
]

DriftVerdict = Literal["no_drift", "drift", "inconclusive", "quarantined"]
_CHUNK_CELLS = 4_000_000
_NULL_ROWS = 10_000  # of the reference behind the draws; more of them would not move the thresholds
_DOMAIN_DRAWS = 200  # its mean and deviation are used, which need fewer than a quantile
_JOINT_SHARE = 0.2  # of alpha, for the domain classifier


@dataclass(frozen=True)
class Column:
    """One feature or the predictions: m reference values and n of the window; NaN or None is a missing value.

    The rows of all columns' references belong together, and so do those of the windows.
    """

    name: str
    kind: Kind
    reference: NDArray[Any]
    window: NDArray[Any]


@dataclass(frozen=True)
class ColumnDrift:
    """One column's statistic beside its threshold; it drifted when the statistic is above."""

    name: str
    kind: Kind
    method: str
    statistic: float
    threshold: float

    @property
    def drifted(self) -> bool:
        return self.statistic > self.threshold

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "method": self.method,
            "statistic": round(self.statistic, 6),
            "threshold": round(self.threshold, 6),
            "drifted": self.drifted,
        }


@dataclass(frozen=True)
class DriftResult:
    """The verdict on one window with everything that led to it; `score` is for dashboards and decides nothing."""

    verdict: DriftVerdict
    reasons: tuple[str, ...]
    rows: int
    reference_rows: int
    columns: tuple[ColumnDrift, ...] = ()
    joint: ColumnDrift | None = None
    score: float = 0.0
    alpha: float | None = None
    null_windows: int = 0
    ordered: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "rows": self.rows,
            "reference_rows": self.reference_rows,
            "columns": [column.as_dict() for column in self.columns],
            "joint": self.joint.as_dict() if self.joint else None,
            "score": round(self.score, 6),
            "alpha": self.alpha,
            "null_windows": self.null_windows,
            "ordered": self.ordered,
        }


def inconclusive(reason: str, rows: int, reference_rows: int = 0) -> DriftResult:
    """Too little to judge; never the same as "no drift"."""
    return DriftResult("inconclusive", (reason,), rows, reference_rows)


class Reference:
    """What windows are judged against; thresholds are made once for each length of window.

    Args:
        columns: names, kinds and reference values; their windows are not looked at.
        ordered: the rows are in time order.
        cycle: (m,) a part of a known cycle of each row, such as the hour of the day: its means are no dependence.
        seed: of the draws; the same window and seed give the same verdict.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        policy: DriftPolicy,
        *,
        ordered: bool = False,
        cycle: NDArray[np.intp] | None = None,
        seed: int = 0,
    ) -> None:
        self._columns, self._policy, self._ordered, self._seed = tuple(columns), policy, ordered, seed
        self._rows = len(columns[0].reference)
        self._bins = [Bins.of(column.kind, column.reference) for column in columns]
        self._codes = [one.codes(column.reference) for one, column in zip(self._bins, columns, strict=True)]
        self._counts = [one.count(column.reference) for one, column in zip(self._bins, columns, strict=True)]
        self._tau = [
            correlation_time(_series(column, codes), cycle) if ordered else 1.0
            for column, codes in zip(columns, self._codes, strict=True)
        ]
        self._domain = DomainClassifier.of(self._bins, [column.reference for column in columns])
        self._thresholds: dict[int, tuple[list[NDArray[np.float64]], float]] = {}

    def judge(self, windows: Sequence[NDArray[Any]]) -> DriftResult:
        """The verdict on one window, given as (n,) values for each column."""
        rows, policy = len(windows[0]), self._policy
        if rows < policy.min_rows:
            return inconclusive(f"{rows} rows in the window, {policy.min_rows} needed", rows, self._rows)
        thresholds, joint_threshold = self._for_length(rows)
        found = tuple(
            _worst(column, bins.statistics(counts, bins.count(window))[0], threshold)
            for column, bins, counts, window, threshold in zip(
                self._columns, self._bins, self._counts, windows, thresholds, strict=True
            )
        )
        joint = None
        if self._domain is not None:
            joint = ColumnDrift("all columns", "number", "domain_auc", self._domain.auc(windows), joint_threshold)
        drifted = [one for one in (*found, *([joint] if joint else [])) if one.drifted]
        said = tuple(f"{one.name}: {one.method} {one.statistic:.3f}, threshold {one.threshold:.3f}" for one in drifted)
        columns = [
            Column(one.name, one.kind, one.reference, window)
            for one, window in zip(self._columns, windows, strict=True)
        ]
        return DriftResult(
            verdict="drift" if drifted else "no_drift",
            reasons=said or (f"none of {len(found)} columns is above its threshold",),
            rows=rows,
            reference_rows=self._rows,
            columns=found,
            joint=joint,
            score=mean_shift_score(columns),
            alpha=policy.alpha,
            null_windows=policy.null_windows,
            ordered=self._ordered,
        )

    def _for_length(self, rows: int) -> tuple[list[NDArray[np.float64]], float]:
        known = self._thresholds.get(rows)
        if known is None:
            floors = effect_floors(self._policy.effect_floor)
            raw = max_t_thresholds(self._null(rows), self._policy.alpha * (1 - _JOINT_SHARE))
            thresholds, at = [], 0
            for column, tau in zip(self._columns, self._tau, strict=True):
                methods = METHODS[column.kind]
                floor = np.array([floors[method] for method in methods])
                thresholds.append(np.maximum(raw[at : at + len(methods)] * math.sqrt(tau), floor))
                at += len(methods)
            joint = math.nan
            if self._domain is not None:
                alpha = self._policy.alpha * _JOINT_SHARE
                draws = min(_DOMAIN_DRAWS, self._policy.null_windows)
                joint = self._domain.threshold(rows, alpha, draws=draws, ordered=self._ordered, seed=self._seed)
                joint = max(joint, floors["domain_auc"])
            known = self._thresholds[rows] = (thresholds, joint)
        return known

    def _null(self, rows: int) -> NDArray[np.float64]:
        """(draws, statistics) between two draws of independent rows, as long as the reference and the window."""
        random, draws = np.random.default_rng(self._seed), self._policy.null_windows
        step = max(1, self._rows // _NULL_ROWS)
        codes = [column[::step] for column in self._codes]
        total = len(codes[0])
        sorted_codes = [_Sorted.of(one, bins.size) for one, bins in zip(codes, self._bins, strict=True)]
        chunk = max(1, _CHUNK_CELLS // total)
        parts = []
        for first in range(0, draws, chunk):
            count = min(chunk, draws - first)
            drawn = resample_counts(random, count, total, rows)
            against = resample_counts(random, count, total, self._rows)
            parts.append(
                np.column_stack(
                    [
                        bins.statistics(one.count(against), one.count(drawn))
                        for bins, one in zip(self._bins, sorted_codes, strict=True)
                    ]
                )
            )
        return np.concatenate(parts)


def effect_floors(deviations: float) -> dict[str, float]:
    """The smallest statistic of each method that counts, for an effect in standard deviations.

    They are what a shift of a normal column by so much gives: 2 Phi(d / 2) - 1 for Kolmogorov-Smirnov, d for
    Wasserstein; for a category whose share moves by d standard deviations of its indicator, d / sqrt 8 is
    Jensen-Shannon's distance to first order. Trifles in several columns add up, so the domain classifier has to see
    twice as much: Phi(2 d / sqrt 2).
    """
    return {
        "ks": float(2 * ndtr(deviations / 2) - 1),
        "wasserstein": deviations,
        "jensenshannon": deviations / math.sqrt(8),
        "domain_auc": float(ndtr(2 * deviations / math.sqrt(2))),
    }


def judge_window(
    columns: Sequence[Column],
    policy: DriftPolicy,
    *,
    ordered: bool = False,
    cycle: NDArray[np.intp] | None = None,
    seed: int = 0,
) -> DriftResult:
    """The verdict on one window; see `Reference`.

    Args:
        columns: all features and the predictions.
    """
    if len(columns[0].window) < policy.min_rows:
        reason = f"{len(columns[0].window)} rows in the window, {policy.min_rows} needed"
        return inconclusive(reason, len(columns[0].window), len(columns[0].reference))
    reference = Reference(columns, policy, ordered=ordered, cycle=cycle, seed=seed)
    return reference.judge([column.window for column in columns])


def statistic(method: str, reference: NDArray[Any], window: NDArray[Any]) -> float:
    """One statistic of one column.

    >>> statistic("ks", np.arange(10.0), np.arange(10.0))
    0.0
    >>> round(statistic("jensenshannon", np.array(["a", "b"]), np.array(["c", "d"])) ** 2, 4)  # ln 2, its largest value
    0.6931
    """
    kind: Kind = "category" if method in METHODS["category"] else "number"
    bins = Bins.of(kind, reference)
    found = bins.statistics(bins.count(reference), bins.count(window))[0]
    return float(found[METHODS[kind].index(method)])


def mean_shift_score(columns: Sequence[Column]) -> float:
    """Mean over the numeric columns of |window mean - reference mean| / reference deviation, each at most 1."""
    shifts = []
    for column in columns:
        if column.kind != "number":
            continue
        reference, window = column.reference.astype(float), column.window.astype(float)
        reference, window = reference[np.isfinite(reference)], window[np.isfinite(window)]
        if not reference.size or not window.size:
            continue
        moved, spread = abs(float(window.mean() - reference.mean())), float(reference.std())
        shifts.append(min(1.0, moved / spread) if spread > 0 else float(moved > 0))
    return float(np.mean(shifts)) if shifts else 0.0


def confirmed(verdict: DriftVerdict, previous: Sequence[str], policy: DriftPolicy) -> bool:
    """Whether drift is seen often enough to act on.

    Args:
        verdict: of the present window.
        previous: verdicts of earlier windows of the same champion, newest first; those that judged nothing
            (inconclusive, quarantined) do not count.

    >>> confirmed("drift", ["no_drift", "drift"], DriftPolicy(confirm=2, confirm_of=3))
    True
    >>> confirmed("drift", ["inconclusive"], DriftPolicy(confirm=2, confirm_of=3))
    False
    """
    if verdict != "drift":
        return False
    judged = [one for one in previous if one in ("drift", "no_drift")][: policy.confirm_of - 1]
    return 1 + judged.count("drift") >= policy.confirm


@dataclass(frozen=True)
class _Sorted:
    """Rows of the reference sorted by bin, to count resamples fast."""

    bins: int
    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    occupied: NDArray[np.intp]

    @classmethod
    def of(cls, codes: NDArray[np.intp], bins: int) -> _Sorted:
        order = np.argsort(codes, kind="stable")
        order = order[int((codes < 0).sum()) :]
        occupied, starts = np.unique(codes[order], return_index=True)
        return cls(bins, order, starts, occupied)

    def count(self, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """(draws, bins) counts of (draws, rows) resample counts."""
        counts = np.zeros((len(drawn), self.bins))
        if len(self.order):
            counts[:, self.occupied] = np.add.reduceat(drawn[:, self.order], self.starts, axis=1)
        return counts


def _series(column: Column, codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Values whose order in time is looked at; of categories whether a row has the most frequent one."""
    if column.kind == "number":
        return np.asarray(column.reference, dtype=float)
    present = codes[codes >= 0]
    most = int(np.bincount(present).argmax()) if len(present) else 0
    return np.where(codes < 0, np.nan, (codes == most).astype(float))


def _worst(column: Column, statistics: NDArray[np.float64], thresholds: NDArray[np.float64]) -> ColumnDrift:
    """The statistic that is furthest above, or least below, its threshold."""
    at = int(np.argmax(statistics / np.maximum(thresholds, 1e-12)))
    method = METHODS[column.kind][at]
    return ColumnDrift(column.name, column.kind, method, float(statistics[at]), float(thresholds[at]))
