from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from slipway.core.drift import (
    Column,
    DriftResult,
    Reference,
    confirmed,
    inconclusive,
    judge_window,
    mean_shift_score,
    statistic,
)
from slipway.core.null import correlation_time
from slipway.spec import DriftPolicy

POLICY = DriftPolicy(min_rows=100, null_windows=100)
NO_FLOOR = POLICY.model_copy(update={"effect_floor": 0.0})


def frame_columns(reference: np.ndarray, window: np.ndarray) -> list[Column]:
    numbers = [Column(f"x{j}", "number", reference[:, j], window[:, j]) for j in range(reference.shape[1])]
    names = np.array(["a", "b", "c"], dtype=object)
    of = [names[(frame[:, 0] > 0).astype(int) + (frame[:, 1] > 0)] for frame in (reference, window)]
    return [*numbers, Column("prediction", "category", of[0], of[1])]


def normal(seed: int, rows: int, columns: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns))


def judge(reference: np.ndarray, window: np.ndarray, policy: DriftPolicy = POLICY, seed: int = 0) -> DriftResult:
    return judge_window(frame_columns(reference, window), policy, seed=seed)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60, unique=True),
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60),
)
@settings(max_examples=200, deadline=None)
def test_the_distance_of_numbers_is_kolmogorov_smirnovs_up_to_half_an_atom(
    left: list[float], right: list[float]
) -> None:
    reference, window = np.array(left), np.array(right)
    heaviest = np.unique(right, return_counts=True)[1].max() / len(right)
    slack = max(1 / len(left), heaviest) + 1e-9
    exact = float(ks_2samp(reference, window, method="asymp").statistic)
    assert exact - slack <= statistic("ks", reference, window) <= exact + 1e-9


def test_the_distance_of_categories_is_scipys() -> None:
    left, right = np.array(["a"] * 60 + ["b"] * 40), np.array(["a"] * 30 + ["b"] * 50 + ["new"] * 20)
    assert statistic("jensenshannon", left, right) == pytest.approx(jensenshannon([0.6, 0.4, 0], [0.3, 0.5, 0.2]))


def test_rounding_on_one_side_only_is_no_difference() -> None:
    exact = normal(1, 20_000, 1)[:, 0]
    assert statistic("ks", np.round(exact, 1), exact) < 0.005


@pytest.mark.parametrize("rows", [200, 1000, 5000])
def test_a_window_drawn_with_replacement_from_a_small_reference_has_not_drifted(rows: int) -> None:
    reference = np.round(normal(1, 150), 1)
    random = np.random.default_rng(2)
    verdicts = []
    for seed in range(15):
        window = reference[random.integers(0, 150, rows)] + random.normal(0, 0.01, (rows, 4))
        verdicts.append(judge(reference, window, seed=seed).verdict)
    assert verdicts.count("no_drift") == 15


@pytest.mark.slow
def test_fresh_samples_of_the_same_population_alarm_no_more_often_than_alpha_says() -> None:
    alarms = 0
    for seed in range(60):
        result = judge(normal(seed, 150), normal(10_000 + seed, 1000), NO_FLOOR, seed)
        alarms += result.verdict == "drift"
    assert alarms <= 3  # binomial(60, 0.01): more than 3 has a probability below 0.4 %


@pytest.mark.slow
def test_autocorrelated_windows_alarm_far_less_when_the_reference_is_known_to_be_ordered() -> None:
    def series(seed: int, rows: int) -> np.ndarray:
        noise = np.random.default_rng(seed).normal(size=(rows, 2))
        return np.asarray(lfilter([1.0], [1.0, -0.9], noise, axis=0))

    policy = NO_FLOOR.model_copy(update={"alpha": 0.05})
    found = {True: 0, False: 0}
    for seed in range(20):
        columns = frame_columns(series(seed, 5000), series(10_000 + seed, 300))
        for ordered in found:
            found[ordered] += judge_window(columns, policy, ordered=ordered, seed=seed).verdict == "drift"
    assert found[True] <= 4
    assert found[True] < found[False] / 3


@pytest.mark.parametrize("shift", [0.5, 1.5])
def test_a_shift_of_one_feature_is_seen(shift: float) -> None:
    seen = 0
    for seed in range(15):
        window = normal(500 + seed, 1000)
        window[:, 2] += shift
        result = judge(normal(seed, 1000), window, seed=seed)
        seen += [column.name for column in result.columns if column.drifted] == ["x2"]
    assert seen >= 14


def test_a_changed_mix_of_predictions_is_seen() -> None:
    reference = np.array(["a"] * 500 + ["b"] * 500, dtype=object)
    window = np.array(["a"] * 900 + ["b"] * 100, dtype=object)
    result = judge_window([Column("prediction", "category", reference, window)], POLICY)
    assert result.verdict == "drift"
    assert result.reasons[0].startswith("prediction: jensenshannon")


def test_a_trifle_in_a_large_window_stays_below_the_effect_floor() -> None:
    reference, window = normal(1, 20_000), normal(2, 20_000) + 0.05
    assert judge(reference, window, NO_FLOOR).verdict == "drift"
    assert judge(reference, window).verdict == "no_drift"


def test_too_few_rows_are_inconclusive_and_say_so() -> None:
    result = judge(normal(1, 500), normal(2, 99))
    assert result.verdict == "inconclusive"
    assert "99 rows" in result.reasons[0]


def test_constant_and_missing_values_are_no_accident() -> None:
    constant = np.ones(300)
    half_missing = np.where(np.arange(300) % 2 == 0, np.nan, np.arange(300.0))
    columns = [Column("constant", "number", constant, constant), Column("gaps", "number", half_missing, half_missing)]
    result = judge_window(columns, POLICY)
    assert result.verdict == "no_drift"
    assert np.isfinite([column.threshold for column in result.columns]).all()
    moved = judge_window([Column("constant", "number", constant, constant + 1)], POLICY)
    assert moved.verdict == "drift"


def test_the_verdict_is_the_same_every_time() -> None:
    reference, window = normal(1, 300), normal(2, 300)
    assert judge(reference, window, seed=4).as_dict() == judge(reference, window, seed=4).as_dict()


def test_the_result_is_plain_json() -> None:
    plain = json.loads(json.dumps(judge(normal(1, 300), normal(2, 300)).as_dict(), allow_nan=False))
    assert plain["verdict"] == "no_drift"
    assert [column["name"] for column in plain["columns"]] == ["x0", "x1", "x2", "x3", "prediction"]
    assert inconclusive("nothing", 0).as_dict()["verdict"] == "inconclusive"


def test_the_score_is_the_mean_of_shifts_in_standard_deviations_capped_at_one() -> None:
    reference = normal(1, 100_000, 2)
    window = normal(2, 100_000, 2) + np.array([0.5, 9.0])
    columns = [Column(name, "number", reference[:, j], window[:, j]) for j, name in enumerate("ab")]
    assert mean_shift_score(columns) == pytest.approx((0.5 + 1.0) / 2, abs=0.02)


@pytest.mark.parametrize(
    ("verdict", "previous", "expected"),
    [
        ("drift", [], False),
        ("drift", ["drift"], True),
        ("drift", ["no_drift", "drift"], True),
        ("drift", ["no_drift", "no_drift", "drift"], False),
        ("drift", ["inconclusive", "quarantined", "drift"], True),
        ("no_drift", ["drift", "drift"], False),
        ("quarantined", ["drift", "drift"], False),
    ],
)
def test_two_of_three_judged_windows_confirm(verdict: str, previous: list[str], expected: bool) -> None:
    policy = DriftPolicy(confirm=2, confirm_of=3)
    assert confirmed(verdict, previous, policy) is expected  # type: ignore[arg-type]


def test_a_correlation_that_flips_is_seen_by_no_column_but_by_all_together() -> None:
    def pair(seed: int, correlation: float) -> np.ndarray:
        frame = normal(seed, 2000)
        frame[:, 1] = correlation * frame[:, 2] + np.sqrt(1 - correlation**2) * frame[:, 1]
        return frame[:, 1:]

    reference = [Column(f"x{j}", "number", column, column[:0]) for j, column in enumerate(pair(1, 0.6).T)]
    judged = Reference(reference, POLICY).judge(list(pair(2, -0.6).T))
    assert judged.verdict == "drift"
    assert not any(column.drifted for column in judged.columns)
    assert judged.reasons[0].startswith("all columns: domain_auc")


def test_rows_of_a_series_count_for_fewer_the_more_they_resemble_their_neighbours() -> None:
    noise = normal(1, 20_000, 1)[:, 0]
    assert correlation_time(noise) < 1.2
    for coefficient in (0.5, 0.9):
        series = lfilter([1.0], [1.0, -coefficient], noise)
        assert correlation_time(series) == pytest.approx((1 + coefficient) / (1 - coefficient), rel=0.2)
    hours = np.arange(20_000) % 24
    assert correlation_time(noise + 3 * np.sin(hours / 24 * 2 * np.pi), hours) < 1.5


@pytest.mark.parametrize(
    "values",
    [np.full(300, np.nan), np.ones(300), np.where(np.arange(300) % 9 == 0, np.inf, np.arange(300.0)), np.zeros(300)],
    ids=["all null", "constant", "infinite", "zero"],
)
def test_an_odd_column_is_judged_or_left_but_never_a_crash(values: np.ndarray) -> None:
    good = normal(1, 300, 1)[:, 0]
    for reference, window in ((values, good), (good, values), (values, values)):
        columns = [Column("odd", "number", reference, window), Column("fine", "number", good, good)]
        result = judge_window(columns, POLICY)
        assert result.verdict in ("drift", "no_drift")
        json.dumps(result.as_dict(), allow_nan=False)
