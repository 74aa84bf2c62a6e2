from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from slipway.core.metrics import Predictions
from slipway.core.retrain import History, Quality, decide, measure_quality
from slipway.spec import RetrainPolicy

NOW = datetime(2026, 11, 20, tzinfo=UTC)
POLICY = RetrainPolicy(cool_down_hours=24, min_new_labels=100, max_per_week=3, max_rejected_in_a_row=2, loss_band=0.1)


def quality(loss: float, bound: float | None = None, labels: int = 500) -> Quality:
    value = 0.9 * (1 - loss)
    return Quality("accuracy", labels, labels, value, 0.9, loss, loss - 0.05 if bound is None else bound)


def test_confirmed_drift_that_hurts_leads_to_a_retrain() -> None:
    decision = decide("drift", True, quality(0.12), History(), POLICY, NOW)
    assert decision.retrain
    assert decision.reasons[0] == "drift is confirmed"


def test_drift_that_does_not_hurt_leads_to_none() -> None:
    decision = decide("drift", True, quality(0.02), History(), POLICY, NOW)
    assert decision.verdict == "not_needed"
    assert "does not hurt" in decision.reasons[0]


def test_drift_without_labels_leads_to_none() -> None:
    assert decide("drift", True, None, History(), POLICY, NOW).verdict == "not_needed"
    assert decide("drift", True, None, History(), POLICY, NOW, 0.02).verdict == "not_needed"
    estimated = decide("drift", True, None, History(), POLICY, NOW, 0.3)
    assert estimated.verdict == "held"
    assert estimated.reasons[1].startswith("+30.0% loss by estimate")
    assert "0 new labels" in estimated.reasons[2]


def test_drift_that_is_not_confirmed_needs_the_labels_to_be_sure() -> None:
    assert decide("drift", False, quality(0.12), History(), POLICY, NOW).verdict == "not_needed"
    assert decide("drift", False, quality(0.2), History(), POLICY, NOW).retrain


def test_labels_alone_are_enough() -> None:
    assert decide("no_drift", False, quality(0.3), History(), POLICY, NOW).retrain
    assert decide("inconclusive", False, quality(0.3), History(), POLICY, NOW).retrain


def test_a_quarantined_window_never_leads_to_training() -> None:
    assert decide("quarantined", True, quality(0.9), History(), POLICY, NOW).verdict == "held"


@pytest.mark.parametrize(
    ("history", "labels", "said"),
    [
        (History([NOW - timedelta(hours=23)]), 500, "cooling down"),
        (History(), 99, "99 new labels"),
    ],
)
def test_the_breaker_holds(history: History, labels: int, said: str) -> None:
    decision = decide("drift", True, quality(0.5, labels=labels), history, POLICY, NOW)
    assert decision.verdict == "held"
    assert any(said in reason for reason in decision.reasons)


def test_two_refused_challengers_in_a_row_stop_and_alert() -> None:
    assert decide("drift", True, quality(0.5), History((), 1), POLICY, NOW).retrain
    assert decide("drift", True, quality(0.5), History((), 2), POLICY, NOW).verdict == "alert"


def test_a_week_full_of_retrains_stops_and_alerts() -> None:
    week = [NOW - timedelta(days=day) for day in (2, 3, 4)]
    decision = decide("drift", True, quality(0.5), History(week), POLICY, NOW)
    assert decision.verdict == "alert"
    assert "3 retrains in the last 7 days" in decision.reasons[-1]
    older = [NOW - timedelta(days=day) for day in (2, 3, 7)]
    assert decide("drift", True, quality(0.5), History(older), POLICY, NOW).retrain


def test_a_person_has_the_last_word_but_not_over_a_quarantined_window() -> None:
    stopped = History([NOW - timedelta(hours=1)] * 3, 2)
    for loss in (0.0, 0.3):
        decision = decide("drift", True, quality(loss, labels=0), stopped, POLICY, NOW, insisted=True)
        assert decision.retrain
        assert decision.reasons[0] == "a person asked for it"
    assert decide("quarantined", False, None, History(), POLICY, NOW, insisted=True).verdict == "held"


def test_nan_never_asks_for_a_retrain() -> None:
    assert decide("drift", True, quality(math.nan, math.nan), History(), POLICY, NOW).verdict == "not_needed"


@pytest.mark.parametrize(("metric", "baseline", "worse"), [("accuracy", 0.9, 0.6), ("rmse", 1.0, 2.0)])
def test_quality_is_a_loss_when_worse_in_the_metrics_own_direction(metric: str, baseline: float, worse: float) -> None:
    random = np.random.default_rng(0)
    if metric == "accuracy":
        truth = np.zeros(1000, dtype=int)
        guess = Predictions((random.random(1000) > worse).astype(int))
    else:
        truth = np.zeros(1000)
        guess = Predictions(random.normal(0, worse, 1000))
    found = measure_quality(metric, truth, guess, baseline, 1000)
    assert found.value == pytest.approx(worse, rel=0.1)
    assert 0.2 < found.loss_bound < found.relative_loss
    assert Quality.from_dict(found.as_dict()) == found


def test_quality_of_no_rows_is_an_error() -> None:
    with pytest.raises(ValueError, match="no labelled rows"):
        measure_quality("accuracy", np.array([]), Predictions(np.array([])), 0.9, 0)


def test_a_bad_hour_bounds_the_loss_less_closely_than_bad_rows_all_over() -> None:
    truth, scattered, together = np.zeros(1000, dtype=int), np.zeros(1000, dtype=int), np.zeros(1000, dtype=int)
    scattered[::5] = 1
    together[300:500] = 1
    bounds = [
        measure_quality("accuracy", truth, Predictions(one), 0.95, 1000).loss_bound for one in (scattered, together)
    ]
    assert bounds[0] > 0.12
    assert bounds[1] < 0.5 * bounds[0]
