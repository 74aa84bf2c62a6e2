"""The metrics agree with scikit-learn's, over whole arrays and over resamples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from slipway.core.metrics import GREATER_IS_BETTER, Predictions, row_statistics, score, value_of_sums
from slipway.spec import Metric

RANDOM = np.random.default_rng(3)
TRUTH = RANDOM.integers(0, 4, 300)
PROBABILITIES = RANDOM.dirichlet(np.ones(4), 300)
CLASSES = Predictions(PROBABILITIES.argmax(axis=1), PROBABILITIES)
NUMBERS = RANDOM.normal(50, 5, 300)
GUESSES = Predictions(NUMBERS + RANDOM.normal(0, 1, 300))

EXPECTED = {
    "accuracy": lambda truth, guess: sk.accuracy_score(truth, guess.values),
    "f1_macro": lambda truth, guess: sk.f1_score(truth, guess.values, average="macro"),
    "log_loss": lambda truth, guess: sk.log_loss(truth, guess.probabilities, labels=[0, 1, 2, 3]),
    "rmse": lambda truth, guess: sk.root_mean_squared_error(truth, guess.values),
    "mae": lambda truth, guess: sk.mean_absolute_error(truth, guess.values),
    "r2": lambda truth, guess: sk.r2_score(truth, guess.values),
}


def case(name: str) -> tuple[np.ndarray, Predictions]:
    return (TRUTH, CLASSES) if name in ("accuracy", "f1_macro", "log_loss") else (NUMBERS, GUESSES)


@pytest.mark.parametrize("name", EXPECTED)
def test_equals_scikit_learn(name: str) -> None:
    truth, guess = case(name)
    assert score(name, truth, guess) == pytest.approx(EXPECTED[name](truth, guess))


@pytest.mark.parametrize("name", EXPECTED)
def test_sums_of_resampled_rows_give_the_metric_of_the_resample(name: str) -> None:
    truth, guess = case(name)
    drawn = np.random.default_rng(5).integers(0, len(truth), len(truth))
    counts = np.bincount(drawn, minlength=len(truth)).astype(float)[None]
    value = value_of_sums(name, counts @ row_statistics(name, truth, guess))[0]
    assert value == pytest.approx(EXPECTED[name](truth[drawn], guess.take(drawn)))


@pytest.mark.parametrize("name", EXPECTED)
def test_knows_the_direction_that_the_spec_knows(name: str) -> None:
    assert GREATER_IS_BETTER[name] is Metric(name=name, floor=0).greater_is_better  # type: ignore[arg-type]


def test_log_loss_refuses_a_model_without_probabilities() -> None:
    with pytest.raises(ValueError, match="probabilities"):
        score("log_loss", TRUTH, Predictions(TRUTH))


def test_r2_of_a_constant_truth_is_not_a_number_and_never_a_success() -> None:
    assert np.isnan(score("r2", np.ones(10), Predictions(np.ones(10))))
