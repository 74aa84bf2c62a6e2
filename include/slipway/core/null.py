"""What a statistic does when nothing has changed: resampling, dependence in time, and the thresholds that follow.

* Samples of independent rows are drawn from the reference with replacement.
* Rows in time order resemble their neighbours, so n of them tell as much as n / tau independent ones. tau is estimated
  from each column's own autocorrelations (Geyer, Practical Markov Chain Monte Carlo, 1992, initial positive sequence);
  distances between distributions shrink with the root of the number of rows, so thresholds grow by the root of tau.
* Thresholds for many statistics at once come from the largest scaled one of each draw (max-T of Westfall and Young,
  Resampling-Based Multiple Testing, 1993).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["correlation_time", "max_t_thresholds", "resample_counts"]

_MOST_TAU_SHARE = 0.05


def correlation_time(values: NDArray[np.float64], groups: NDArray[np.intp] | None = None) -> float:
    """tau >= 1: how many neighbouring rows tell as much as one independent row.

    Args:
        values: (m,) in time order; only their ranks count. Missing values are left out.
        groups: (m,) a part of a known cycle, such as the hour of the day; each group's mean is taken out before.
    """
    present = ~np.isnan(values)
    ranks = _ranks(values[present])
    if groups is not None:
        codes = groups[present]
        means = np.bincount(codes, ranks) / np.maximum(np.bincount(codes), 1)
        ranks = ranks - means[codes]
    rows = len(ranks)
    centred = ranks - ranks.mean() if rows else ranks
    if rows < 8 or not centred.any():
        return 1.0
    spectrum = np.abs(np.fft.rfft(centred, 2 ** math.ceil(math.log2(2 * rows)))) ** 2
    covariance = np.fft.irfft(spectrum)[: rows // 2]
    # Dividing by the number of pairs, not of rows: the usual bias towards zero would make tau too small.
    correlation = covariance / covariance[0] * rows / (rows - np.arange(len(covariance)))
    pairs = correlation[: len(correlation) // 2 * 2].reshape(-1, 2).sum(axis=1)
    ends = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: ends[0]] if len(ends) else pairs)
    return float(min(max(1.0, 2 * pairs.sum() - 1), max(1.0, _MOST_TAU_SHARE * rows)))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(values)
    return np.asarray(np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right"), dtype=float)


def resample_counts(random: np.random.Generator, draws: int, rows: int, length: int) -> NDArray[np.float64]:
    """(draws, rows) how often each of `rows` rows is in each sample of `length` rows, drawn with replacement."""
    flat = (random.integers(0, rows, (draws, length)) + rows * np.arange(draws)[:, None]).ravel()
    return np.bincount(flat, minlength=draws * rows).reshape(draws, rows).astype(np.float64)


def max_t_thresholds(null: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """Per statistic, of (draws, statistics); together exceeded by at most `alpha` of the draws.

    Statistics are made comparable by their mean and deviation, which few draws tell well; their outer quantiles would
    fit the draws at hand and let too many others through.
    """
    middle, spread = null.mean(axis=0), np.maximum(null.std(axis=0), 1e-12)
    largest = np.sort(((null - middle) / spread).max(axis=1))
    # Rounded up to an observed value, so that few draws err to caution.
    rank = min(len(largest), math.ceil((len(largest) + 1) * (1 - alpha)))
    return np.asarray(middle + spread * largest[rank - 1])
