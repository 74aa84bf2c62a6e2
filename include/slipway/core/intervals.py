"""How sure each metric of each version is: bootstrap intervals, for people to read; the gate's rule is in `gate`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipway.core.metrics import Predictions, known_classes, row_statistics, value_of_sums
from slipway.core.resample import resamples

__all__ = ["Interval", "metric_intervals"]

Interval = tuple[float, float, float]


def metric_intervals(
    metrics: Sequence[str],
    truth: NDArray[Any],
    answers: Mapping[str, Predictions],
    *,
    block: int = 1,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, dict[str, Interval]]:
    """Each metric of each version with its two-sided 95 % percentile interval: value, lower end, upper end.

    Metrics that a version's answers do not allow (log_loss without probabilities) are left out for it.
    """
    classes = known_classes(truth, *answers.values())
    statistics = {
        (metric, name): row_statistics(metric, truth, answer, classes)
        for metric in metrics
        for name, answer in answers.items()
        if metric != "log_loss" or answer.probabilities is not None
    }
    drawn: dict[tuple[str, str], list[NDArray[np.float64]]] = {key: [] for key in statistics}
    for counts in resamples(len(truth), draws, block, seed):
        for (metric, name), sums in statistics.items():
            drawn[metric, name].append(value_of_sums(metric, counts @ sums))
    found: dict[str, dict[str, Interval]] = {}
    for (metric, name), sums in statistics.items():
        value = float(value_of_sums(metric, sums.sum(axis=0, keepdims=True))[0])
        values = np.concatenate([*drawn[metric, name], np.array([])])
        values = values[np.isfinite(values)]
        low, high = np.quantile(values, [0.025, 0.975]) if values.size else (math.nan, math.nan)
        found.setdefault(metric, {})[name] = (value, float(low), float(high))
    return found
