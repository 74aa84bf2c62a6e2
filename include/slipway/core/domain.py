"""Can the window be told from the reference by how columns go together? A domain classifier and its null.

The classifier is Fisher's linear discriminant on normal scores of the columns and their pairwise products, in a space
where the reference is white; it is learned on one half of the window and judged on the other by the area under the
ROC curve, both ways round. A half is the first or the second in time, so that neighbours do not help it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import t as student

from slipway.core.bins import Bins

__all__ = ["DomainClassifier"]

_MOST_ROWS = 4_000
_MOST_PRODUCT_COLUMNS = 25
_RIDGE = 0.05


@dataclass(frozen=True)
class DomainClassifier:
    """A reference, ready for windows to be told from it.

    Attributes:
        white: (rows, dimensions) the reference's expanded rows, centred and whitened.
    """

    bins: tuple[Bins, ...]
    sorted_values: tuple[NDArray[np.float64], ...]
    products: int
    middle: NDArray[np.float64]
    whitening: NDArray[np.float64]
    white: NDArray[np.float64]

    @classmethod
    def of(cls, bins: Sequence[Bins], columns: Sequence[NDArray[Any]]) -> DomainClassifier | None:
        """None where there is too little to learn from: fewer than two columns, or fewer than 100 rows."""
        rows = len(columns[0])
        if len(columns) < 2 or rows < 100:
            return None
        step = max(1, rows // (2 * _MOST_ROWS))
        columns = [column[::step] for column in columns]
        ordered = tuple(
            np.sort(np.asarray(column, dtype=float)[~np.isnan(np.asarray(column, dtype=float))])
            if one.kind == "number" else np.zeros(0)
            for one, column in zip(bins, columns, strict=True)
        )  # fmt: skip
        room = int(math.sqrt(len(columns[0]) / 2))  # the products are to stay far fewer than the rows
        products = min(_MOST_PRODUCT_COLUMNS, room)
        expanded = _expand(bins, ordered, products, columns)
        middle = expanded.mean(axis=0)
        centred = expanded - middle
        covariance = centred.T @ centred / len(centred)
        scale = max(float(np.trace(covariance)) / len(covariance), 1e-12)
        values, vectors = np.linalg.eigh(covariance + _RIDGE * scale * np.eye(len(covariance)))
        whitening = vectors / np.sqrt(values)
        return cls(tuple(bins), ordered, products, middle, whitening, centred @ whitening)

    def auc(self, columns: Sequence[NDArray[Any]]) -> float:
        """How well a window, in its order, is told from the reference; 0.5 is not at all."""
        window = (_expand(self.bins, self.sorted_values, self.products, columns) - self.middle) @ self.whitening
        return _auc(self.white[:: max(1, len(self.white) // _MOST_ROWS)], window)

    def threshold(self, rows: int, alpha: float, *, draws: int, ordered: bool, seed: int) -> float:
        """The area that windows of `rows` rows from the reference itself exceed with chance `alpha`.

        The chance is Student's for the number of windows that the reference holds side by side: a quantile of so few
        could not be read off.
        """
        random, total = np.random.default_rng(seed), len(self.white)
        length = min(rows, total // 3) if ordered else rows
        size = min(total, _MOST_ROWS)
        found = []
        for _ in range(draws):
            if ordered:
                start = int(random.integers(0, total - length + 1))
                drawn = np.arange(start, start + length)
                rest = np.concatenate([np.arange(start), np.arange(start + length, total)])
                against = rest[:: max(1, len(rest) // _MOST_ROWS)]
            else:
                drawn, against = random.integers(0, total, rows), random.integers(0, total, size)
            found.append(_auc(self.white[against], self.white[drawn]))
        freedom = max(4.0, total / length - 1) if ordered else float(draws)
        # A shorter window than asked for varies more by the root of the lengths; that is on the safe side.
        return float(np.mean(found) + np.std(found) * student.ppf(1 - alpha, freedom))


def _expand(
    bins: Sequence[Bins], ordered: Sequence[NDArray[np.float64]], products: int, columns: Sequence[NDArray[Any]]
) -> NDArray[np.float64]:
    scores, shown = [], []
    for one, reference, column in zip(bins, ordered, columns, strict=True):
        if one.kind == "number":
            scores.append(_normal_scores(reference, np.asarray(column, dtype=float)))
        else:
            codes = one.codes(column)
            shown += [(codes == code).astype(float) for code in range(min(one.size, 12))]
    pairs = [
        scores[left] * scores[right]
        for left in range(min(len(scores), products))
        for right in range(left + 1, min(len(scores), products))
    ]
    return np.column_stack([*scores, *shown, *pairs])


def _normal_scores(reference: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    if not len(reference):
        return np.zeros(len(values))
    rank = (np.searchsorted(reference, values, "left") + np.searchsorted(reference, values, "right")) / 2
    scores = ndtri((rank + 0.5) / (len(reference) + 1))
    return np.asarray(np.where(np.isnan(values), 0.0, scores))


def _auc(reference: NDArray[np.float64], window: NDArray[np.float64]) -> float:
    half = len(window) // 2
    if half < 10:
        return 0.5
    middle = reference.mean(axis=0)
    areas = []
    for learn, judge in ((window[:half], window[half:]), (window[half:], window[:half])):
        direction = learn.mean(axis=0) - middle
        inside, outside = judge @ direction, np.sort(reference @ direction)
        below = np.searchsorted(outside, inside, "left") + np.searchsorted(outside, inside, "right")
        areas.append(below.mean() / 2 / len(outside))
    return float(np.mean(areas))
