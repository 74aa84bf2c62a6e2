"""The replays of `make bench-decisions` with few trials, and its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from decisions import gate, report, retrain
from decisions.case import Outcome
from slipway.spec import RetrainPolicy

_SMALL = [one for one in gate.SETTINGS if one.name.startswith(("accuracy", "diabetes"))]


@pytest.mark.slow
@pytest.mark.parametrize("setting", _SMALL, ids=lambda one: one.name)
def test_the_gate_tells_better_from_equal_from_worse(setting: gate.Setting) -> None:
    assert gate.share_passed(setting, 0.0, "drift", 15, 0) <= 0.2
    assert gate.share_passed(setting, 0.05, "drift", 5, 1) >= 0.6
    assert gate.share_passed(setting, -0.01, "scheduled", 10, 2) <= 0.3


def test_no_week_of_a_feed_that_always_drifts_holds_more_retrains_than_allowed() -> None:
    nights = retrain.always_drifting(60, RetrainPolicy(), gate_passes=True)
    assert retrain.most_in_a_week(nights) == 3
    verdicts = [one["verdict"] for one in nights]
    assert verdicts[:8] == ["retrain"] * 3 + ["alert"] * 4 + ["retrain"]
    assert set(verdicts) == {"retrain", "alert"}


def test_two_refused_challengers_end_automatic_retraining() -> None:
    nights = retrain.always_drifting(60, RetrainPolicy(), gate_passes=False)
    assert [one["verdict"] for one in nights] == ["retrain"] * 2 + ["alert"] * 58
    assert "2 challengers in a row" in nights[-1]["reasons"][-1]


@pytest.mark.slow
def test_a_window_with_wrong_labels_is_trained_on_and_refused() -> None:
    loop = retrain.loop_of(retrain.SPECS["iris"]())
    loop.traffic(1000, labels=True)
    retrain.flip_labels(loop, 0.2, np.random.default_rng(1))
    night = retrain.night(loop)
    assert night.watched["verdict"] == "no_drift"
    assert night.decision["retrain"]
    assert night.evidence is not None
    assert night.evidence["verdict"] == "fail"
    assert night.evidence["remaining_loss"] > 0.1
    assert any("look at the labels" in reason for reason in night.evidence["reasons"])


def test_the_report_says_what_was_missed(tmp_path: Path) -> None:
    kept, missed = (
        Outcome("a", 0.02, 0.05, True, 100),
        Outcome("b", 0.5, 0.8, False, 10, notes={"beside": "a peer: 40%"}),
    )
    lines = [report.Line("gate", "case", one, 1.0) for one in (kept, missed)]
    shown = report.table(lines).splitlines()
    assert [row.split()[5] for row in shown[1:3]] == ["yes", "NO"]
    assert shown[-1] == "b: a peer: 40%"
    report.write({"plan": "quick"}, lines, tmp_path / "decisions.json")
    written = json.loads((tmp_path / "decisions.json").read_text())
    assert [one["kept"] for one in written["outcomes"]] == [True, False]
    assert written["outcomes"][1]["notes"] == {"beside": "a peer: 40%"}
