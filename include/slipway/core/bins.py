"""A column as counts over bins that the reference sets; every statistic of it needs nothing else.

Numbers: grid points g_0 < g_1 < … taken from the reference; bin 2k+1 holds the values equal to g_k and bin 2k those
between g_(k-1) and g_k. Distribution functions are compared at the grid points with half of the tied mass
(mid-distribution), so rounding in one sample and not in the other is no difference.

Categories: one bin for each of the reference and one for all others, which gives the very distance that single bins
for those would give.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["METHODS", "Bins", "Kind"]

Kind = Literal["number", "category"]
METHODS: dict[Kind, tuple[str, ...]] = {"number": ("ks", "wasserstein"), "category": ("jensenshannon",)}
_GRID_POINTS = 512


@dataclass(frozen=True)
class Bins:
    """How one column is counted; `spread` is the reference's standard deviation (numbers only)."""

    kind: Kind
    size: int
    grid: NDArray[Any]
    spread: float

    @classmethod
    def of(cls, kind: Kind, reference: NDArray[Any]) -> Bins:
        if kind == "category":
            names = np.unique(_text(reference)[~_missing(reference)])
            return cls(kind, len(names) + 1, names, 1.0)
        present = np.asarray(reference, dtype=float)
        present = present[np.isfinite(present)]
        grid = np.unique(present)
        if len(grid) > _GRID_POINTS:
            present = np.sort(present)
            grid = np.unique(present[np.linspace(0, len(present) - 1, _GRID_POINTS).astype(int)])
        return cls(kind, 2 * len(grid) + 1, grid, float(present.std()) if len(present) else 0.0)

    def codes(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """(n,) bins of values; -1 where one is missing."""
        if self.kind == "category":
            text, missing = _text(values), _missing(values)
            found = np.searchsorted(self.grid, text) if len(self.grid) else np.zeros(len(text), dtype=np.intp)
            known = np.zeros(len(text), dtype=bool)
            inside = found < len(self.grid)
            known[inside] = self.grid[found[inside]] == text[inside]
            return np.asarray(np.where(missing, -1, np.where(known, found, len(self.grid))), dtype=np.intp)
        numbers = np.asarray(values, dtype=float)
        codes = np.searchsorted(self.grid, numbers, "left") + np.searchsorted(self.grid, numbers, "right")
        return np.asarray(np.where(np.isnan(numbers), -1, codes), dtype=np.intp)

    def count(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """(1, bins) how many values are in each bin."""
        codes = self.codes(values)
        return np.bincount(codes[codes >= 0], minlength=self.size).astype(float)[None]

    def statistics(self, reference: NDArray[np.float64], window: NDArray[np.float64]) -> NDArray[np.float64]:
        """(samples, methods) of (samples, bins) counts, in the order of `METHODS`."""
        left, right = _shares(reference), _shares(window)
        if self.kind == "category":
            return _jensen_shannon(left, right)[:, None]
        return np.column_stack([_ks(left, right), self._wasserstein(left, right)])

    def _wasserstein(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        """In standard deviations of the reference; what lies beyond the reference counts as at its edge."""
        if len(self.grid) < 2 or self.spread <= 0:
            return np.zeros(len(left))
        difference = left - right
        between = difference.cumsum(axis=1)[:, 1:-1:2] + difference[:, 2::2] / 2
        widths = np.diff(self.grid) / self.spread
        return np.asarray(np.abs(between[:, : len(widths)]) @ widths)


def _text(values: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(values, dtype=object).astype(str)


def _missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.array([value is None or value != value for value in values], dtype=bool)


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
