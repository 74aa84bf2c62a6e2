"""Reading a window of the prediction log: its rows, its labels, the champion's answers to them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slipway.core.encoding import NUMERIC_KINDS, class_names, encode_target
from slipway.core.metrics import Predictions
from slipway.core.text_features import measure_texts
from slipway.jobs.quarantine import Window
from slipway.jobs.snapshot import plain_columns
from slipway.ports import Lake, ModelVersion, Scorer
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "PREDICTION",
    "champion_answers",
    "drift_frame",
    "join_labels",
    "labelled_rows",
    "plain_predictions",
    "sample_rows",
    "without_quarantined",
]

_log = logging.getLogger(__name__)
_LABELS_BEFORE_DAYS = 30  # a label may come before its prediction
PREDICTION = "prediction"


def sample_rows(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most `most` rows, drawn evenly at random and kept in their order; the same frame gives the same rows."""
    if len(frame) <= most:
        return frame.reset_index(drop=True)
    chosen = np.sort(np.random.default_rng(len(frame)).choice(len(frame), most, replace=False))
    return frame.iloc[chosen].reset_index(drop=True)


def join_labels(spec: ModelSpec, lake: Lake, rows: pd.DataFrame, start: datetime) -> pd.DataFrame:
    """The rows that have a label, with it in the target's column; a label that fits no class or number is left out."""
    labels = lake.labels(spec.name, start - timedelta(days=_LABELS_BEFORE_DAYS), None)
    return fitting_labels(
        spec, rows.merge(labels[["request_id", "row", "label"]], on=["request_id", "row"], how="inner")
    )


def labelled_rows(spec: ModelSpec, lake: Lake, start: datetime, end: datetime) -> pd.DataFrame:
    """Rows of a window that have a label, as `join_labels` gives them; at most the policy's `max_rows`, by chance."""
    since = start - timedelta(days=_LABELS_BEFORE_DAYS)
    found = lake.labelled_predictions(spec.name, start, end, labels_from=since, limit=spec.drift.max_rows)
    return fitting_labels(spec, found)


def fitting_labels(spec: ModelSpec, joined: pd.DataFrame) -> pd.DataFrame:
    """Rows whose `label` fits the target, which it becomes."""
    import pandas as pd

    labelled: NDArray[Any]
    if spec.target.classes is not None:
        labelled = joined["label"].astype(str).to_numpy(dtype=object)
        fits = np.isin(labelled.astype(str), spec.target.classes)
    else:
        labelled = pd.to_numeric(joined["label"], errors="coerce").to_numpy(dtype=float)
        fits = np.isfinite(labelled)
    if not fits.all():
        _log.warning("%s: %d labels fit no %s", spec.name, int((~fits).sum()), spec.target.name)
    return plain_columns(spec, joined.assign(**{spec.target.name: labelled})[fits].drop(columns="label"))


def champion_answers(spec: ModelSpec, champion: ModelVersion, scorer: Scorer, rows: pd.DataFrame) -> Predictions:
    """What the champion answered to `rows`, or answers now where another version had answered."""
    computed = scorer.predict(rows)
    own = (rows["version"].astype(str) == champion.version).to_numpy()
    values = computed.values.copy()
    if own.any():
        logged = rows[PREDICTION].to_numpy()[own]
        values[own] = encode_target(spec.target.classes, logged)
    return Predictions(values, computed.probabilities)


def plain_predictions(spec: ModelSpec, answers: Predictions) -> NDArray[np.object_] | NDArray[np.float64]:
    """Class names, or numbers."""
    classes = spec.target.classes
    return class_names(classes, answers.values) if classes is not None else answers.values.astype(np.float64)


def without_quarantined(rows: pd.DataFrame, windows: Sequence[Window]) -> pd.DataFrame:
    """The rows outside of all `windows`."""
    keep = np.ones(len(rows), dtype=bool)
    for window in windows:
        keep &= ~((rows["ts"] >= window.start) & (rows["ts"] < window.end)).to_numpy()
    return rows[keep].reset_index(drop=True)


def drift_frame(spec: ModelSpec, rows: pd.DataFrame, answers: Predictions) -> pd.DataFrame:
    """What drift is looked for in: the features, texts by their measures, and the predictions."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for feature in spec.features:
        column = rows[feature.name]
        if feature.kind == "text":
            columns |= measure_texts(feature.name, column)
        else:
            columns[feature.name] = column.astype(float if feature.kind in NUMERIC_KINDS else object).to_numpy()
    frame = pd.DataFrame(columns).reset_index(drop=True)
    frame[PREDICTION] = plain_predictions(spec, answers)
    return frame
