from __future__ import annotations

import json

import numpy as np
import pytest

from slipway.core.gate import GateResult, judge, judge_first, shown_worse
from slipway.core.intervals import metric_intervals
from slipway.core.metrics import Predictions
from slipway.core.recovery import Recovery
from slipway.core.verdict import Verdict
from slipway.spec import GatePolicy, Metric

ACCURACY = Metric(name="accuracy", floor=0.8)
RMSE = Metric(name="rmse", floor=2.0)
POLICY = GatePolicy(resamples=500)


def labels_with_errors(rows: int, share: float, seed: int) -> tuple[np.ndarray, Predictions]:
    truth = np.random.default_rng(0).integers(0, 3, rows)
    wrong = np.random.default_rng(seed).random(rows) < share
    return truth, Predictions(np.where(wrong, (truth + 1) % 3, truth))


def compare(before: float, after: float, reason: str, rows: int = 1000, seed: int = 1) -> GateResult:
    truth, champion = labels_with_errors(rows, before, seed)
    _, challenger = labels_with_errors(rows, after, seed + 1000)
    return judge(ACCURACY, POLICY, truth, champion, challenger, reason)


@pytest.mark.parametrize("reason", ["drift", "manual-better", "scheduled", "data", "manual"])
def test_a_worse_challenger_is_rejected_whatever_the_reason(reason: str) -> None:
    assert compare(0.05, 0.15, reason).verdict is Verdict.FAIL


@pytest.mark.parametrize("reason", ["drift", "manual-better", "scheduled", "data", "manual"])
def test_a_better_challenger_is_accepted_whatever_the_reason(reason: str) -> None:
    result = compare(0.15, 0.05, reason)
    assert result.verdict is Verdict.PASS
    assert result.lower_bound is not None
    assert result.lower_bound > 0


def test_the_same_model_again_is_no_worse_but_not_better() -> None:
    truth, champion = labels_with_errors(500, 0.1, 1)
    assert judge(ACCURACY, POLICY, truth, champion, champion, "data").verdict is Verdict.PASS
    assert judge(ACCURACY, POLICY, truth, champion, champion, "drift").verdict is Verdict.FAIL


def test_superiority_lets_equal_challengers_through_at_most_as_often_as_the_confidence_says() -> None:
    passed = sum(compare(0.1, 0.1, "drift", rows=400, seed=seed).verdict is Verdict.PASS for seed in range(2, 202))
    assert passed <= 0.05 * 200


@pytest.mark.parametrize(("won", "passes"), [(4, False), (7, True)])
def test_a_few_rows_more_right_are_no_proof(won: int, passes: bool) -> None:
    truth = np.zeros(40, dtype=int)
    champion = Predictions((np.arange(40) < won).astype(int))
    assert (judge(ACCURACY, POLICY, truth, champion, Predictions(truth), "drift").verdict is Verdict.PASS) is passes


def test_a_challenger_that_is_better_but_does_not_heal_is_refused() -> None:
    truth, champion = labels_with_errors(800, 0.3, 1)
    _, challenger = labels_with_errors(800, 0.2, 2)
    assert judge(ACCURACY, POLICY, truth, champion, challenger, "drift").verdict is Verdict.PASS
    strict = judge(ACCURACY, POLICY, truth, champion, challenger, "drift", recovery=Recovery(0.95, 0.1))
    assert strict.verdict is Verdict.FAIL
    assert "not shown to heal" in strict.reasons[-1]
    assert strict.remaining_loss == pytest.approx(0.16, abs=0.05)
    close = judge(ACCURACY, POLICY, truth, champion, challenger, "drift", recovery=Recovery(0.88, 0.1))
    assert close.remaining_loss is not None
    assert close.remaining_loss < 0.1  # by luck, perhaps
    assert close.verdict is Verdict.FAIL
    trusted = judge(ACCURACY, POLICY, truth, champion, challenger, "drift", recovery=Recovery(0.88, 0.1, proof=False))
    assert trusted.verdict is Verdict.PASS
    enough = judge(ACCURACY, POLICY, truth, champion, challenger, "drift", recovery=Recovery(0.85, 0.1))
    assert enough.verdict is Verdict.PASS


def test_only_what_chance_does_not_explain_is_worse() -> None:
    truth, champion = labels_with_errors(300, 0.05, 1)
    _, equal = labels_with_errors(300, 0.05, 2)
    _, worse = labels_with_errors(300, 0.3, 3)
    assert shown_worse(ACCURACY, POLICY, truth, champion, worse)
    assert not shown_worse(ACCURACY, POLICY, truth, worse, champion)
    assert not shown_worse(ACCURACY, POLICY, truth, champion, equal)
    assert not shown_worse(ACCURACY, POLICY, truth, champion, champion)
    assert not shown_worse(ACCURACY, POLICY, truth[:0], Predictions(truth[:0]), Predictions(truth[:0]))


def test_intervals_hold_the_value_and_leave_out_what_cannot_be_told() -> None:
    truth, champion = labels_with_errors(600, 0.1, 1)
    _, challenger = labels_with_errors(600, 0.2, 2)
    found = metric_intervals(
        ["accuracy", "f1_macro", "log_loss"], truth, {"champion": champion, "challenger": challenger}, draws=200
    )
    assert set(found) == {"accuracy", "f1_macro"}
    value, low, high = found["accuracy"]["champion"]
    assert low < value < high
    assert value == pytest.approx(0.9, abs=0.03)
    assert found["accuracy"]["challenger"][2] < low


def test_non_inferiority_needs_a_point_estimate_that_is_not_negative() -> None:
    truth = np.zeros(2000, dtype=int)
    one_error = Predictions(np.concatenate([[1], np.zeros(1999, dtype=int)]))
    result = judge(ACCURACY, POLICY, truth, Predictions(truth), one_error, "scheduled")
    assert result.lower_bound is not None
    assert result.margin is not None
    assert result.lower_bound > -result.margin
    assert result.verdict is Verdict.FAIL


def test_an_error_metric_is_better_when_smaller() -> None:
    truth = np.random.default_rng(0).normal(size=800)
    noise = np.random.default_rng(1).normal(size=800)
    close, far = Predictions(truth + 0.5 * noise), Predictions(truth + noise)
    assert judge(RMSE, POLICY, truth, far, close, "drift").verdict is Verdict.PASS
    assert judge(RMSE, POLICY, truth, close, far, "scheduled").verdict is Verdict.FAIL


def test_rows_in_time_order_are_resampled_in_blocks_and_the_bound_widens() -> None:
    random = np.random.default_rng(2)
    shared = np.repeat(random.normal(size=50), 20)  # errors that last 20 rows
    truth = np.zeros(1000)
    champion, challenger = Predictions(truth + 1.0 + shared), Predictions(truth + 1.0)
    bounds = [
        judge(RMSE, POLICY, truth, champion, challenger, "drift", ordered=ordered).lower_bound
        for ordered in (False, True)
    ]
    assert bounds[0] is not None
    assert bounds[1] is not None
    assert bounds[1] < bounds[0]


def test_a_first_version_has_only_the_floor_to_pass() -> None:
    truth, good = labels_with_errors(100, 0.1, 1)
    _, bad = labels_with_errors(100, 0.5, 1)
    assert judge_first(ACCURACY, truth, good, "data").verdict is Verdict.PASS
    assert judge_first(ACCURACY, truth, bad, "data").verdict is Verdict.FAIL
    assert judge_first(RMSE, np.zeros(5), Predictions(np.full(5, 3.0)), "data").verdict is Verdict.FAIL


def test_a_slice_that_gets_worse_stops_a_challenger_that_is_better_on_the_whole() -> None:
    truth = np.zeros(2000, dtype=int)
    small = np.arange(2000) < 250
    champion = Predictions(np.where(~small & (np.arange(2000) % 4 == 0), 1, 0))
    challenger = Predictions(np.where(small & (np.arange(2000) % 3 == 0), 1, 0))
    masks = {"small": small, "large": ~small, "tiny": np.arange(2000) < 20}
    result = judge(ACCURACY, POLICY, truth, champion, challenger, "drift", slices=masks)
    assert result.improvement is not None
    assert result.improvement > 0
    assert result.verdict is Verdict.FAIL
    assert {one["slice"]: one["verdict"] for one in result.slices} == {"small": "fail", "large": "pass"}
    assert "small" in result.reasons[-1]


def test_no_rows_never_pass() -> None:
    nothing = Predictions(np.array([], dtype=int))
    assert judge(ACCURACY, POLICY, nothing.values, nothing, nothing, "data").verdict is Verdict.FAIL
    assert judge_first(ACCURACY, nothing.values, nothing, "data").verdict is Verdict.FAIL


def test_the_evidence_is_plain_json_and_names_everything() -> None:
    evidence = json.loads(json.dumps(compare(0.1, 0.05, "drift").as_dict(), allow_nan=False))
    assert {"rows", "champion", "challenger", "improvement", "lower_bound", "resamples", "reason", "verdict"} <= set(
        evidence
    )
    assert evidence["rows"] == 1000


def test_the_same_rows_give_the_same_evidence() -> None:
    assert compare(0.1, 0.05, "drift") == compare(0.1, 0.05, "drift")
