"""Whether to retrain, and the circuit breaker that keeps automatic retraining from running away.

Two things can ask for a retrain: confirmed drift together with a loss on labelled rows outside of its band, or the
labels alone when even the lower confidence bound of the loss lies outside. The breaker then may still say no: for now
(`held`: a cool-down, too few labels), or until a person has looked (`alert`: the week's allowance is used up, or the
gate refused several challengers in a row).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from slipway.core.drift import DriftVerdict
from slipway.core.metrics import GREATER_IS_BETTER, Predictions, row_statistics, value_of_sums
from slipway.core.resample import block_length, lower_level, resamples
from slipway.spec import RetrainPolicy

__all__ = ["History", "Quality", "RetrainDecision", "RetrainVerdict", "decide", "measure_quality"]

RetrainVerdict = Literal["retrain", "not_needed", "held", "alert"]
_RESAMPLES = 1000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Quality:
    """The champion's metric on labelled rows of the window beside what it reached on its held-out rows.

    Attributes:
        relative_loss: worsening as a share of the baseline; positive is worse for every metric.
        loss_bound: its one-sided lower 95 % bound.
        new_labels: labelled rows that the champion was not trained on.
    """

    metric: str
    rows: int
    new_labels: int
    value: float
    baseline: float
    relative_loss: float
    loss_bound: float

    def as_dict(self) -> dict[str, Any]:
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in vars(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Quality:
        plain: dict[str, Any] = {key: math.nan if value is None else value for key, value in values.items()}
        return cls(**plain)


@dataclass(frozen=True)
class History:
    """What automatic retraining did before: when it started trainings, and how many gates in a row refused."""

    retrained_at: Sequence[datetime] = ()
    rejected_in_a_row: int = 0


@dataclass(frozen=True)
class RetrainDecision:
    """`held`: asked for, but the breaker or the data says no; `alert`: a person has to look."""

    verdict: RetrainVerdict
    reasons: tuple[str, ...]

    @property
    def retrain(self) -> bool:
        return self.verdict == "retrain"


def measure_quality(
    metric: str, truth: NDArray[Any], guess: Predictions, baseline: float, new_labels: int, seed: int = 0
) -> Quality:
    """The metric on labelled rows with a bootstrap bound of its worsening.

    The rows are in time order: bad hours come in a row, and a bound that takes them for independent is too close.

    Raises:
        ValueError: no rows, or a metric that the predictions do not allow.
    """
    if not len(truth):
        raise ValueError("no labelled rows")
    statistics = row_statistics(metric, truth, guess)
    value = float(value_of_sums(metric, statistics.sum(axis=0, keepdims=True))[0])
    sign = 1.0 if GREATER_IS_BETTER[metric] else -1.0
    scale = max(abs(baseline), 1e-12)
    block = block_length(statistics[:, 1:].sum(axis=1))
    drawn = [value_of_sums(metric, counts @ statistics) for counts in resamples(len(truth), _RESAMPLES, block, seed)]
    losses = sign * (baseline - np.concatenate(drawn)) / scale
    losses = losses[np.isfinite(losses)]
    level = lower_level(_CONFIDENCE, len(truth) // block, _RESAMPLES)
    return Quality(
        metric=metric,
        rows=len(truth),
        new_labels=new_labels,
        value=value,
        baseline=baseline,
        relative_loss=sign * (baseline - value) / scale,
        loss_bound=float(np.quantile(losses, level)) if losses.size else math.nan,
    )


def decide(
    drift: DriftVerdict,
    drift_confirmed: bool,
    quality: Quality | None,
    history: History,
    policy: RetrainPolicy,
    now: datetime,
    estimated_loss: float | None = None,
    *,
    insisted: bool = False,
) -> RetrainDecision:
    """Retrain or not, with every reason.

    Args:
        drift: verdict on the present window; a quarantined window never leads to training.
        quality: None when no labels have come.
        estimated_loss: relative, from confidence or a model of the error; it only counts while there are no labels,
            and then leads to a retrain that is held until they come.
        insisted: a person asks for the retrain, whatever the policy says; not even that trains on a quarantined window.
    """
    if drift == "quarantined":
        return RetrainDecision("held", ("the window failed its data checks and is quarantined",))
    wanted, why = _wanted(drift_confirmed, quality, policy, estimated_loss)
    if insisted:
        return RetrainDecision("retrain", ("a person asked for it", *why))
    if not wanted:
        return RetrainDecision("not_needed", why)
    stop = _stopped(history, policy, now)
    if stop:
        return RetrainDecision("alert", (*why, *stop))
    held = _held(quality, history, policy, now)
    return RetrainDecision("held", (*why, *held)) if held else RetrainDecision("retrain", why)


def _wanted(
    drift_confirmed: bool, quality: Quality | None, policy: RetrainPolicy, estimated_loss: float | None
) -> tuple[bool, tuple[str, ...]]:
    if quality is None:
        seen = "drift is confirmed" if drift_confirmed else "no confirmed drift"
        if drift_confirmed and estimated_loss is not None and estimated_loss > policy.loss_band:
            return True, (seen, f"{estimated_loss:+.1%} loss by estimate, band {policy.loss_band:.1%}; no labels yet")
        return False, (f"{seen}, and no labels tell whether quality suffered",)
    loss = (
        f"{quality.metric} {quality.value:.4g} on {quality.rows} labelled rows against {quality.baseline:.4g}: "
        f"{quality.relative_loss:+.1%} loss (lower bound {quality.loss_bound:+.1%}), band {policy.loss_band:.1%}"
    )
    # Comparisons are written so that nan never asks for a retrain.
    if drift_confirmed and quality.relative_loss > policy.loss_band:
        return True, ("drift is confirmed", loss)
    if quality.loss_bound > policy.loss_band:
        return True, ("labels alone show a loss", loss)
    return False, ("drift is confirmed but does not hurt" if drift_confirmed else "no confirmed drift, no loss", loss)


def _stopped(history: History, policy: RetrainPolicy, now: datetime) -> tuple[str, ...]:
    """What opens the breaker: automatic retraining does not help, or does so again and again."""
    found = []
    if history.rejected_in_a_row >= policy.max_rejected_in_a_row:
        refused = f"the gate refused {history.rejected_in_a_row} challengers in a row"
        found.append(f"{refused}; look into it, then train by hand: a challenger that passes closes the breaker")
    week = sum(1 for at in history.retrained_at if timedelta(0) <= now - at < timedelta(days=7))
    if week >= policy.max_per_week:
        found.append(f"{week} retrains in the last 7 days, {policy.max_per_week} allowed; a person has to look")
    return tuple(found)


def _held(quality: Quality | None, history: History, policy: RetrainPolicy, now: datetime) -> tuple[str, ...]:
    held = []
    labels = quality.new_labels if quality else 0
    if labels < policy.min_new_labels:
        held.append(f"{labels} new labels, {policy.min_new_labels} needed")
    last = max(history.retrained_at, default=None)
    if last is not None and now - last < timedelta(hours=policy.cool_down_hours):
        held.append(f"cooling down: last retrain {last.isoformat()}, {policy.cool_down_hours:g} h needed between two")
    return tuple(held)
