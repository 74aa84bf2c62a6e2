"""Evidently: the drift report that people read, drawn with the statistics and thresholds that gave the verdict.

Evidently's own Kolmogorov-Smirnov method reports a p-value and its Wasserstein distance is scaled otherwise; the
verdict is about our distances, so they are registered as methods of their own. Evidently fails on missing, empty or
all-null columns and on strings among numbers: frames come here only after their data checks.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway.core.drift import DriftResult, statistic

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EvidentlyReporter"]

_METHODS = {"ks": "slipway_ks", "wasserstein": "slipway_wasserstein", "jensenshannon": "jensenshannon"}
_NAMES = {"ks": "Kolmogorov-Smirnov distance", "wasserstein": "Wasserstein distance (reference deviations)"}


class EvidentlyReporter:
    """The `DriftReporter` port."""

    def report(self, reference: pd.DataFrame, window: pd.DataFrame, result: DriftResult) -> tuple[str, str]:
        """(HTML, JSON) of the columns of `result`; both frames hold them, the window as many rows as were judged."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies warn about each other
            snapshot = _run(reference, window, result)
            page = str(snapshot.get_html_str(as_iframe=False))
            plain = json.dumps({"evidently": json.loads(snapshot.json()), "slipway": result.as_dict()}, indent=1)
        return page, plain


def _run(reference: pd.DataFrame, window: pd.DataFrame, result: DriftResult) -> Any:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    _register()
    names = [column.name for column in result.columns]
    numbers = [column.name for column in result.columns if column.kind == "number"]
    categories = [column.name for column in result.columns if column.kind == "category"]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    frames = [_typed(frame[names], numbers) for frame in (window, reference)]
    preset = DataDriftPreset(
        columns=names,
        per_column_method={column.name: _METHODS[column.method] for column in result.columns},
        per_column_threshold={column.name: column.threshold for column in result.columns},
        drift_share=1 / len(names),  # one drifted column is drift: the thresholds are already for all columns together
    )
    datasets = [Dataset.from_pandas(frame, data_definition=definition) for frame in frames]
    return Report([preset]).run(*datasets)


def _typed(frame: pd.DataFrame, numbers: list[str]) -> pd.DataFrame:
    typed = frame.copy()
    for name in typed.columns:
        typed[name] = typed[name].astype(float) if name in numbers else typed[name].astype(str)
    return typed


def _register() -> None:
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType

    for method, shown in _NAMES.items():
        # Bound as a default, or both would be the last one.
        def distance(
            reference: Any, current: Any, feature_type: Any, threshold: float, method: str = method
        ) -> tuple[float, bool]:
            value = statistic(method, np.asarray(reference, dtype=float), np.asarray(current, dtype=float))
            return value, value > threshold

        test = StatTest(
            name=_METHODS[method],
            display_name=shown,
            allowed_feature_types=[ColumnType.Numerical],
            default_threshold=0.1,
        )
        register_stattest(test, distance)
