"""Has a window of traffic drifted from the reference? Statistics, thresholds from the reference, verdict.

Each column gets one statistic: for numbers the Kolmogorov-Smirnov distance, for categories the Jensen-Shannon distance
(natural logarithm, as SciPy's). Its threshold comes from the reference itself: many pairs of a reference and a window
of the same sizes are drawn from it, and the (1 - alpha) quantile of the largest scaled statistic over all columns
bounds the false alarms of the whole window (max-T of Westfall and Young, Resampling-Based Multiple Testing, 1993).
Both sides are drawn, so a small reference raises its own thresholds. A floor on the effect keeps large windows from
flagging trifles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slipway.spec import DriftPolicy

__all__ = [
    "Column",
    "ColumnDrift",
    "DriftResult",
    "DriftVerdict",
    "confirmed",
    "inconclusive",
    "judge_window",
    "mean_shift_score",
    "statistic",
]

DriftVerdict = Literal["no_drift", "drift", "inconclusive", "quarantined"]
Kind = Literal["number", "category"]
METHOD: dict[Kind, str] = {"number": "ks", "category": "jensenshannon"}
_GRID_POINTS = 512
_CHUNK_CELLS = 4_000_000


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
            "score": round(self.score, 6),
            "alpha": self.alpha,
            "null_windows": self.null_windows,
            "ordered": self.ordered,
        }


def inconclusive(reason: str, rows: int, reference_rows: int = 0) -> DriftResult:
    """Too little to judge; never the same as "no drift"."""
    return DriftResult("inconclusive", (reason,), rows, reference_rows)


def judge_window(
    columns: Sequence[Column], policy: DriftPolicy, *, ordered: bool = False, seed: int = 0
) -> DriftResult:
    """The verdict on one window.

    Args:
        columns: all features and the predictions.
        ordered: the reference's rows are in time order, so null windows are made of contiguous stretches of it.
        seed: of the null windows; the same window and seed give the same verdict.
    """
    rows, reference_rows = len(columns[0].window), len(columns[0].reference)
    if rows < policy.min_rows:
        return inconclusive(f"{rows} rows in the window, {policy.min_rows} needed", rows, reference_rows)
    binned = [_Binned.of(column) for column in columns]
    null = _null_statistics(binned, reference_rows, rows, policy.null_windows, ordered, seed)
    thresholds = np.maximum(_max_t_thresholds(null, policy.alpha), policy.effect_floor)
    found = tuple(
        ColumnDrift(column.name, column.kind, METHOD[column.kind], one.observed(), float(threshold))
        for column, one, threshold in zip(columns, binned, thresholds, strict=True)
    )
    drifted = [column for column in found if column.drifted]
    said = tuple(f"{one.name}: {one.method} {one.statistic:.3f}, threshold {one.threshold:.3f}" for one in drifted)
    return DriftResult(
        verdict="drift" if drifted else "no_drift",
        reasons=said or (f"none of {len(found)} columns is above its threshold",),
        rows=rows,
        reference_rows=reference_rows,
        columns=found,
        score=mean_shift_score(columns),
        alpha=policy.alpha,
        null_windows=policy.null_windows,
        ordered=ordered,
    )


def statistic(kind: Kind, reference: NDArray[Any], window: NDArray[Any]) -> float:
    """The statistic of one column.

    >>> statistic("number", np.arange(10.0), np.arange(10.0))
    0.0
    >>> round(statistic("category", np.array(["a", "b"]), np.array(["c", "d"])) ** 2, 4)  # ln 2, its largest value
    0.6931
    """
    return _Binned.of(Column("", kind, reference, window)).observed()


def mean_shift_score(columns: Sequence[Column]) -> float:
    """Mean over the numeric columns of |window mean - reference mean| / reference deviation, each at most 1."""
    shifts = []
    for column in columns:
        if column.kind != "number":
            continue
        reference, window = column.reference.astype(float), column.window.astype(float)
        reference, window = reference[~np.isnan(reference)], window[~np.isnan(window)]
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
class _Binned:
    """A column as counts over bins; statistics and null windows need nothing else.

    Numbers: grid points g_0 < g_1 < … taken from the reference; bin 2k+1 holds the values equal to g_k and bin 2k those
    between g_(k-1) and g_k. Distribution functions are compared at the grid points with half of the tied mass
    (mid-distribution), so rounding in one sample and not in the other is no difference.
    """

    kind: Kind
    bins: int
    order: NDArray[np.intp]  # reference rows without missing values, sorted by bin
    starts: NDArray[np.intp]  # where each occupied bin starts in `order`
    occupied: NDArray[np.intp]
    reference: NDArray[np.float64]  # (1, bins) counts
    window: NDArray[np.float64]

    @classmethod
    def of(cls, column: Column) -> _Binned:
        code = _number_codes if column.kind == "number" else _category_codes
        reference, window, bins = code(column.reference, column.window)
        order = np.argsort(reference, kind="stable")
        order = order[int((reference < 0).sum()) :]
        occupied, starts = np.unique(reference[order], return_index=True)
        counted = [np.bincount(some[some >= 0], minlength=bins).astype(float)[None] for some in (reference, window)]
        return cls(column.kind, bins, order, starts, occupied, counted[0], counted[1])

    def count(self, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
        """(draws, bins) counts of (draws, reference rows) resample counts."""
        counts = np.zeros((len(drawn), self.bins))
        if len(self.order):
            counts[:, self.occupied] = np.add.reduceat(drawn[:, self.order], self.starts, axis=1)
        return counts

    def compare(self, reference: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
        return (_ks if self.kind == "number" else _jensen_shannon)(_shares(reference), _shares(window))

    def observed(self) -> float:
        return float(self.compare(self.reference, self.window)[0])


def _number_codes(reference: NDArray[Any], window: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    reference, window = np.asarray(reference, dtype=float), np.asarray(window, dtype=float)
    grid = np.unique(reference[~np.isnan(reference)])
    if len(grid) > _GRID_POINTS:
        present = np.sort(reference[~np.isnan(reference)])
        grid = np.unique(present[np.linspace(0, len(present) - 1, _GRID_POINTS).astype(int)])

    def code(values: NDArray[Any]) -> NDArray[np.intp]:
        codes = np.searchsorted(grid, values, "left") + np.searchsorted(grid, values, "right")
        return np.asarray(np.where(np.isnan(values), -1, codes), dtype=np.intp)

    return code(reference), code(window), 2 * len(grid) + 1


def _category_codes(reference: NDArray[Any], window: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
    both = np.concatenate([np.asarray(reference, dtype=object), np.asarray(window, dtype=object)])
    missing = np.array([value is None or value != value for value in both], dtype=bool)
    names, codes = np.unique(both.astype(str), return_inverse=True)
    codes = np.where(missing, -1, codes).astype(np.intp)
    return codes[: len(reference)], codes[len(reference) :], len(names)


def _shares(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.where(total > 0, total, 1.0))


def _ks(reference: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    difference = reference - window
    at_grid = difference.cumsum(axis=1)[:, 1::2] - difference[:, 1::2] / 2
    return np.asarray(np.abs(at_grid).max(axis=1, initial=0.0))


def _jensen_shannon(reference: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
    middle = (reference + window) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(reference > 0, reference * np.log(reference / middle), 0.0)
        right = np.where(window > 0, window * np.log(window / middle), 0.0)
    return np.asarray(np.sqrt(np.maximum((left + right).sum(axis=1) / 2, 0.0)))


def _null_statistics(
    columns: Sequence[_Binned], reference_rows: int, rows: int, windows: int, ordered: bool, seed: int
) -> NDArray[np.float64]:
    """(windows, columns) statistics between two draws from the reference, as long as the reference and the window."""
    random = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // max(reference_rows, 1))
    block = min(rows, max(1, reference_rows // 10)) if ordered else 1
    null = np.zeros((windows, len(columns)))
    for first in range(0, windows, chunk):
        last = min(first + chunk, windows)
        drawn = _draw(random, last - first, reference_rows, rows, block)
        against = _draw(random, last - first, reference_rows, reference_rows, block)
        for index, column in enumerate(columns):
            null[first:last, index] = column.compare(column.count(against), column.count(drawn))
    return null


def _draw(random: np.random.Generator, draws: int, rows: int, length: int, block: int) -> NDArray[np.float64]:
    """(draws, rows) how often each of `rows` rows is in each sample of about `length` rows, by circular blocks."""
    starts = random.integers(0, rows, (draws, math.ceil(length / block)))
    flat = (starts + rows * np.arange(draws)[:, None]).ravel()
    counts = np.bincount(flat, minlength=draws * rows).reshape(draws, rows).astype(np.float64)
    if block > 1:  # a row is drawn by each start among the `block` rows up to it
        padded = np.concatenate([np.zeros((draws, 1)), np.tile(counts, (1, 2)).cumsum(axis=1)], axis=1)
        ends = np.arange(rows, 2 * rows) + 1
        counts = padded[:, ends] - padded[:, ends - block]
    return counts


def _max_t_thresholds(null: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Per column; together exceeded by at most `alpha` of the null windows.

    Columns are made comparable by the mean and deviation of their statistic, which few null windows tell well; their
    outer quantiles would fit the null windows at hand and let too many others through.
    """
    middle, spread = null.mean(axis=0), np.maximum(null.std(axis=0), 1e-12)
    largest = ((null - middle) / spread).max(axis=1)
    return np.asarray(middle + spread * _upper_quantile(largest, alpha))


def _upper_quantile(values: NDArray[np.float64], alpha: float) -> float:
    """The (1 - alpha) quantile, rounded up to an observed value so that few windows err to caution."""
    rank = min(len(values), math.ceil((len(values) + 1) * (1 - alpha)))
    return float(np.sort(values)[rank - 1])
