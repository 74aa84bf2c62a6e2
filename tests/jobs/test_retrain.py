"""What the breaker needs from the log: matured labels, and no training that was refused already."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from jobs.loop_cases import END, IRIS, START, Loop

SHIFT = {"petal_length": 1.5}
DAY = timedelta(days=1)


class NoReport:
    def report(self, reference: pd.DataFrame, window: pd.DataFrame, result: Any) -> tuple[str, str]:
        return "", "{}"


@pytest.fixture
def loop() -> Loop:
    logistic = tuple(one for one in IRIS.candidates if one.name == "logistic")
    loop = Loop(spec=IRIS.model_copy(update={"candidates": logistic}), reporter=NoReport())
    loop.first_champion()
    return loop


def test_labels_that_take_a_day_are_judged_and_trained_on_a_day_later(loop: Loop) -> None:
    policy = loop.spec.retrain.model_copy(update={"label_delay_hours": 24})
    loop.spec = loop.spec.model_copy(update={"retrain": policy})
    loop.traffic(600, labels=True, shifts=SHIFT, start=START - DAY, end=START)
    loop.traffic(400, labels=True, seed=1)  # the window's own labels, of which more will come
    watched = loop.watch()
    assert watched["rows"] == 400
    assert watched["quality"]["rows"] == 600
    assert watched["quality"]["relative_loss"] > 0.1
    decision = loop.decide(watched)
    assert decision["retrain"]
    frame = loop.lake.read_snapshot(loop.assemble(decision))
    assert frame["ts"].notna().sum() == 600
    assert frame["ts"].max() < pd.Timestamp(START)


def test_a_quarantined_window_gives_no_labels_later(loop: Loop) -> None:
    policy = loop.spec.retrain.model_copy(update={"label_delay_hours": 24})
    loop.spec = loop.spec.model_copy(update={"retrain": policy})
    loop.traffic(300, labels=True, start=START - DAY, end=START)
    loop.lake.logged["sepal_width"] = -1.0
    assert loop.watch(START - DAY, START)["verdict"] == "quarantined"
    loop.traffic(300, seed=1)
    assert loop.watch()["quality"] is None


def test_a_training_that_the_gate_refused_is_not_asked_for_again_unless_by_hand(loop: Loop) -> None:
    loop.traffic(600, labels=True)
    loop.lake.labelled["label"] = loop.lake.labelled["label"].sample(frac=1, random_state=1).to_numpy()
    decision = loop.decide(loop.watch())
    taken = loop.assemble(decision)
    trained = loop.train(taken, "drift")
    evidence = loop.gate(trained["run_id"], "drift")
    assert evidence["verdict"] == "fail"
    first = next(one for one in loop.decisions.rows if one.kind == "gate" and one.evidence["rule"] == "floor")
    assert evidence["older_rows"]["rows"] == first.evidence["rows"]  # what was held out from the champion
    assert evidence["older_rows"]["champion"] > 0.9
    again = loop.train(taken, "drift")
    assert "the gate refused this very training against version 1" in again["skipped"]
    assert loop.train(taken, "manual")["run_id"] == trained["run_id"]


def test_a_decision_carries_what_it_was_made_of(loop: Loop) -> None:
    loop.traffic(600, labels=True, shifts=SHIFT)
    evidence = loop.decide(loop.watch())
    row = next(one for one in loop.decisions.rows if one.kind == "retrain")
    assert row.evidence == evidence
    assert evidence["drift"] == "drift"
    assert evidence["quality"]["rows"] == 600
    assert (evidence["retrained_at"], evidence["rejected_in_a_row"]) == ([], 0)
    later = loop.decide({**loop.watch(), "start": END.isoformat(), "end": (END + DAY).isoformat()})
    assert later["retrained_at"] == [loop.now.isoformat()]
