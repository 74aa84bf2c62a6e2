"""The bootstrap behind the gate: which rows are drawn, in blocks of what length, and how far out a bound lies.

Everything works on counts: how often each row is in each resample. A metric is a function of sums over rows (see
`metrics`), so one matrix product of counts and row statistics gives it for many resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

__all__ = ["block_length", "informative_blocks", "lower_level", "resamples"]

_CHUNK_CELLS = 4_000_000
_MONTE_CARLO_ERRORS = 2.0


def resamples(rows: int, draws: int, block: int = 1, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """(some, rows) counts in chunks of bounded size, `draws` resamples in all; nothing for no rows.

    With `block` > 1 the resamples are made of circular blocks (Politis and Romano, 1992) of that many rows.

    >>> [counts.sum() for counts in resamples(rows=4, draws=2, seed=1)]
    [8.0]
    """
    random = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_CELLS // max(rows, 1))
    for first in range(0, draws if rows else 0, chunk):
        yield _draw(random, min(chunk, draws - first), rows, block)


def _draw(random: np.random.Generator, draws: int, rows: int, block: int) -> NDArray[np.float64]:
    starts = random.integers(0, rows, (draws, math.ceil(rows / block)))
    flat = (starts + rows * np.arange(draws)[:, None]).ravel()
    counts = np.bincount(flat, minlength=draws * rows).reshape(draws, rows).astype(np.float64)
    if block > 1:  # a row is drawn by each start among the `block` rows up to it, across the end of the circle
        padded = np.concatenate([np.zeros((draws, 1)), counts[:, rows - block + 1 :], counts], axis=1).cumsum(axis=1)
        counts = padded[:, block:] - padded[:, :-block]
    return counts


def block_length(series: NDArray[np.float64]) -> int:
    """Rows per block for a series in time order: long enough for what neighbours share.

    The rule of Politis and White (Econometric Reviews 23, 2004, with the correction of Patton, Politis and White, 2009)
    for circular blocks, never below n^(1/3), which is its rate, nor above min(3 n^(1/2), n / 3), its own limit.
    """
    rows = len(series)
    least = max(1, math.ceil(math.cbrt(rows)))
    most = max(least, math.ceil(min(3 * math.sqrt(rows), rows / 3)))
    centred = series - series.mean() if rows else series
    if rows < 10 or not centred.any():
        return least
    patience = max(5, math.ceil(math.sqrt(math.log10(rows))))
    lags = min(rows - 1, math.ceil(math.sqrt(rows)) + patience)
    covariance = np.array([centred[: rows - lag] @ centred[lag:] for lag in range(lags + 1)]) / rows
    notable = np.abs(covariance[1:] / covariance[0]) >= 2 * math.sqrt(math.log10(rows) / rows)
    reach = min(2 * max(_last_before_quiet(notable, patience), 1), lags)
    lag = np.arange(1, reach + 1)
    weight = np.minimum(1.0, 2 * (1 - lag / reach))  # a flat-top window
    spread = covariance[0] + 2 * float((weight * covariance[1 : reach + 1]).sum())
    slope = 2 * float((weight * lag * covariance[1 : reach + 1]).sum())
    if spread <= 0:
        return most
    return min(max(math.ceil(math.cbrt(1.5 * (slope / spread) ** 2 * rows)), least), most)


def _last_before_quiet(notable: NDArray[np.bool_], patience: int) -> int:
    """The last lag (from 1) before `patience` lags in a row that are not notable."""
    last = 0
    for lag, loud in enumerate(notable, start=1):
        if loud:
            last = lag
        elif lag - last >= patience:
            break
    return last


def informative_blocks(series: NDArray[np.float64], block: int) -> int:
    """How many stretches of `block` rows hold a difference at all; only they tell two models apart."""
    return len(np.unique(np.flatnonzero(series) // block))


def lower_level(confidence: float, informative: int, draws: int) -> float:
    """The quantile of the resampled values that bounds a difference from below at least with `confidence`.

    The plain percentile is too close for few observations, most of all for counts of errors; the expanded percentile
    of Hesterberg (The American Statistician 69, 2015, section 5.3) widens it as Student's t widens the normal. Two
    standard errors of the resampling are taken off besides, so that another seed would hardly let more through.

    Args:
        informative: rows or blocks that differ between the two models.

    >>> round(lower_level(0.95, 1000, 2000), 3), round(lower_level(0.95, 5, 2000), 3)
    (0.04, 0.004)
    """
    if informative < 2:
        return 0.0
    widened = math.sqrt(informative / (informative - 1)) * float(stdtrit(informative - 1, 1 - confidence))
    level = float(ndtr(widened))
    return max(0.0, level - _MONTE_CARLO_ERRORS * math.sqrt(level * (1 - level) / draws))
