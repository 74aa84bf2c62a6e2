"""What the champion's quality probably is while labels have not come: an estimate, and always called one.

Classification: the accuracy that its confidence promises, corrected by how often it was right at such confidence on the
rows held out from training (Guo et al., On Calibration of Modern Neural Networks, 2017, histogram binning). Regression:
the absolute error that a second model, learned on the same rows, expects from the features. Neither can see that the
world itself answers differently than before; only labels can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slipway.core.encoding import encode_target, feature_matrix
from slipway.core.metrics import Predictions
from slipway.jobs.holdout import split
from slipway.ports import Scorer
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["estimate_quality"]

_BINS = 10
_MIN_ROWS = 30


def estimate_quality(
    spec: ModelSpec, trained_on: pd.DataFrame, rows: pd.DataFrame, answers: Predictions, scorer: Scorer
) -> dict[str, Any] | None:
    """The estimate for a window beside the same estimate for the rows held out; None where there is too little.

    Returns:
        `metric` (estimated_accuracy or estimated_mae), `value` with its standard error, `baseline`, `rows`, and
        `relative_loss`, positive when it is worse.
    """
    held_out = trained_on.iloc[split(spec, trained_on).held_out].reset_index(drop=True)
    if len(held_out) < _MIN_ROWS or not len(rows):
        return None
    known = scorer.predict(held_out)
    truth = encode_target(spec.target.classes, held_out[spec.target.name].to_numpy())
    if spec.target.classes is None:
        expected, baseline = _errors(spec, held_out, np.abs(known.values - truth), rows)
        name, worse = "estimated_mae", 1.0
    elif answers.probabilities is None or known.probabilities is None:
        return None
    else:
        right = (known.values == truth).astype(float)
        expected = _calibrated(known.probabilities.max(axis=1), right, answers.probabilities.max(axis=1))
        baseline, name, worse = float(right.mean()), "estimated_accuracy", -1.0
    value = float(expected.mean())
    return {
        "metric": name,
        "value": value,
        "standard_error": float(expected.std() / np.sqrt(len(expected))),
        "baseline": baseline,
        "relative_loss": worse * (value - baseline) / max(abs(baseline), 1e-12),
        "rows": len(expected),
    }


def _calibrated(
    confidence: NDArray[np.float64], right: NDArray[np.float64], asked: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) how often rows of such confidence were right; where hardly any were seen, the confidence itself counts."""
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, _BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, confidence, "right")
    seen = np.bincount(bins, minlength=len(edges) + 1)
    hits = np.bincount(bins, right, minlength=len(edges) + 1)
    sums = np.bincount(bins, confidence, minlength=len(edges) + 1)
    correction = (hits - sums) / (seen + 5.0)  # five rows that were as right as they were confident
    return np.asarray(np.clip(asked + correction[np.searchsorted(edges, asked, "right")], 0.0, 1.0))


def _errors(
    spec: ModelSpec, held_out: pd.DataFrame, errors: NDArray[np.float64], rows: pd.DataFrame
) -> tuple[NDArray[np.float64], float]:
    """(n,) the expected absolute error of each row, and its mean over the rows held out."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    features = [(feature.name, feature.kind) for feature in spec.features]
    model = HistGradientBoostingRegressor(max_iter=50, max_depth=3, random_state=7)
    model.fit(feature_matrix(features, held_out), errors)
    expected = np.maximum(np.asarray(model.predict(feature_matrix(features, rows)), dtype=float), 0.0)
    return expected, float(errors.mean())
