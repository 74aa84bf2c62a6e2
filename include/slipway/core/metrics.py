"""The metrics of `spec.Metric`, written as functions of sums over rows.

Each metric is `value(sum of its row statistics)`. A bootstrap then needs no refit and no loop over rows: resampling
rows is a matrix product of resample counts with the statistics, and a slice is a sum over fewer rows.

>>> truth, guess = np.array([0, 1, 2, 2]), Predictions(np.array([0, 1, 2, 1]))
>>> score("accuracy", truth, guess)
0.75
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "GREATER_IS_BETTER",
    "REPORTED",
    "Predictions",
    "known_classes",
    "row_statistics",
    "score",
    "value_of_sums",
]

GREATER_IS_BETTER = {"accuracy": True, "f1_macro": True, "r2": True, "log_loss": False, "rmse": False, "mae": False}
REPORTED = {"classification": ("accuracy", "f1_macro", "log_loss"), "regression": ("rmse", "mae", "r2")}
_PROBABILITY_FLOOR = 1e-15


@dataclass(frozen=True)
class Predictions:
    """A model's answers to n rows.

    Attributes:
        values: (n,) class indices for classification, numbers for regression.
        probabilities: (n, classes) in the order of the target's classes; None where a model has none.
    """

    values: NDArray[Any]
    probabilities: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[np.intp]) -> Predictions:
        return Predictions(self.values[rows], None if self.probabilities is None else self.probabilities[rows])


def row_statistics(
    metric: str, truth: NDArray[Any], guess: Predictions, classes: int | None = None
) -> NDArray[np.float64]:
    """(n, k) statistics whose sums determine the metric; the first column is 1.

    Args:
        truth: (n,) class indices or numbers.
        classes: their number, for `f1_macro`; classes beyond those in `truth` and `guess` when None are not known.

    Raises:
        ValueError: an unknown metric, or `log_loss` without probabilities.
    """
    ones = np.ones(len(truth))
    if metric == "accuracy":
        return np.column_stack([ones, truth == guess.values])
    if metric == "f1_macro":
        count = classes or int(max(truth.max(initial=0), guess.values.max(initial=0))) + 1
        known = np.arange(count)
        real, said = truth[:, None] == known, guess.values[:, None] == known
        return np.column_stack([ones, real & said, real, said])
    if metric == "log_loss":
        if guess.probabilities is None:
            raise ValueError("log_loss needs probabilities")
        given = guess.probabilities[np.arange(len(truth)), truth.astype(np.intp)]
        return np.column_stack([ones, -np.log(np.clip(given, _PROBABILITY_FLOOR, 1.0))])
    error = truth.astype(np.float64) - guess.values.astype(np.float64)
    if metric == "mae":
        return np.column_stack([ones, np.abs(error)])
    if metric == "rmse":
        return np.column_stack([ones, error**2])
    if metric == "r2":
        centred = truth - truth.mean()  # any constant may be taken off; this one keeps the sums small
        return np.column_stack([ones, error**2, centred, centred**2])
    raise ValueError(f"unknown metric {metric!r}")


def known_classes(truth: NDArray[Any], *guesses: Predictions) -> int | None:
    """How many classes the truth and several models' answers know together; None for numbers."""
    if truth.dtype.kind == "f":
        return None
    return 1 + max(int(values.max(initial=0)) for values in (truth, *(guess.values for guess in guesses)))


def value_of_sums(metric: str, sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """(b,) metric values of (b, k) sums of row statistics; nan where a metric is not defined."""
    count = sums[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        if metric == "f1_macro":
            hit, real, said = np.split(sums[:, 1:], 3, axis=1)
            seen = (real + said) > 0  # a class that neither occurs nor is predicted does not count
            f1 = np.where(seen, 2 * hit / np.where(seen, real + said, 1.0), 0.0)
            return np.asarray(f1.sum(axis=1) / seen.sum(axis=1))
        if metric == "rmse":
            return np.asarray(np.sqrt(sums[:, 1] / count))
        if metric == "r2":
            spread = sums[:, 3] - sums[:, 2] ** 2 / count
            return np.asarray(1.0 - sums[:, 1] / np.where(spread > 0, spread, np.nan))
        return np.asarray(sums[:, 1] / count)


def score(metric: str, truth: NDArray[Any], guess: Predictions, classes: int | None = None) -> float:
    """The metric over all rows."""
    total = row_statistics(metric, truth, guess, classes).sum(axis=0, keepdims=True)
    return float(value_of_sums(metric, total)[0])
