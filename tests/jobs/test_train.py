"""Training, the gate and registration, each repeatable."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

from fleet import iris
from jobs.loop_cases import Loop
from slipway.errors import ConflictError, DataError, QuarantineError
from slipway.jobs.holdout import split
from slipway.jobs.train import default_key
from slipway.spec import Candidate, GatePolicy, Metric

DUMMY = Candidate(name="dummy", build=lambda: DummyClassifier(strategy="most_frequent"))


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_every_candidate_is_a_run_with_metrics_data_set_and_hash(loop: Loop) -> None:
    taken = loop.snapshot()
    trained = loop.train(taken)
    runs = loop.tracker.find_runs("iris", {"slipway.key": trained["key"]})
    assert {run.tags["slipway.candidate"] for run in runs} == {"forest_50", "forest_100", "logistic"}
    for run in runs:
        assert run.finished
        assert run.tags["slipway.snapshot"] == taken.sha256 == loop.tracker.datasets[run.run_id]
        assert {"validation_accuracy", "holdout_accuracy", "holdout_log_loss"} <= set(run.metrics)
    best = [run for run in runs if run.tags.get("slipway.best") == "true"]
    assert [run.run_id for run in best] == [trained["run_id"]]
    assert best[0].metrics["validation_accuracy"] == max(run.metrics["validation_accuracy"] for run in runs)


def test_training_twice_trains_once(loop: Loop) -> None:
    taken = loop.snapshot()
    assert loop.train(taken) == loop.train(taken)
    assert len(loop.tracker.runs) == 3


class _DiesOnceError(Exception):
    pass


@pytest.mark.parametrize(
    ("step", "at"), [*itertools.product(["start_run", "log", "log_dataset", "finish"], [1, 3]), ("upload_model", 1)]
)
def test_a_killed_training_is_completed_by_the_next_one(loop: Loop, step: str, at: int) -> None:
    real, calls = getattr(loop.tracker, step), []

    def die(*arguments: Any, **named: Any) -> Any:
        calls.append(step)
        result = real(*arguments, **named)
        if len(calls) == at:
            raise _DiesOnceError  # after the effect: the worst moment
        return result

    setattr(loop.tracker, step, die)
    taken = loop.snapshot()
    with pytest.raises(_DiesOnceError):
        loop.train(taken)
    trained = loop.train(taken)
    assert len(loop.tracker.runs) == 3
    assert all(run.finished for _, run in loop.tracker.runs.values())
    assert loop.gate(trained["run_id"])["verdict"] == "pass"


def test_a_candidate_that_changed_is_trained_again(loop: Loop) -> None:
    taken = loop.snapshot()

    def changed() -> Any:
        return DummyClassifier(strategy="prior")

    other = loop.spec.model_copy(update={"candidates": (Candidate(name="dummy", build=changed),)})
    same_name = loop.spec.model_copy(update={"candidates": (DUMMY,)})
    assert default_key(other, taken, "c") != default_key(same_name, taken, "c")
    assert default_key(other, taken, "c") == default_key(other, taken, "c")


def test_the_champions_own_data_is_not_trained_on_again_unless_by_hand(loop: Loop) -> None:
    loop.first_champion()
    taken = loop.snapshot()
    assert "version 1" in loop.train(taken)["skipped"]
    assert "run_id" in loop.train(taken, "manual")


def test_a_quarantined_snapshot_is_never_trained_on(loop: Loop) -> None:
    frame = iris.load().assign(petal_width=-1.0)
    loop.spec = loop.spec.model_copy(update={"loader": lambda: frame})
    taken = loop.snapshot()
    with pytest.raises(QuarantineError, match="petal_width"):
        loop.validate(taken)
    with pytest.raises(QuarantineError, match="petal_width"):
        loop.train(taken)
    assert not loop.tracker.runs


def test_data_without_one_of_the_classes_is_refused(loop: Loop) -> None:
    frame = iris.load().query("species != 'setosa'")
    with pytest.raises(DataError, match="no training row is setosa"):
        loop.train(loop.lake.write_snapshot("iris", frame, "loader"))


def test_the_split_never_moves_a_row_to_the_other_side() -> None:
    frame = iris.load()
    parts = split(iris.MODEL, frame)
    assert 0.15 < len(parts.held_out) / 150 < 0.35
    more = pd.concat([frame.sample(frac=1, random_state=1), frame.iloc[:20]])
    again = split(iris.MODEL, more.reset_index(drop=True))

    def rows(source: pd.DataFrame, positions: np.ndarray) -> set[tuple[Any, ...]]:
        return set(source.iloc[positions].itertuples(index=False, name=None))

    assert rows(frame, parts.held_out) == rows(more, again.held_out)
    assert not rows(frame, parts.held_out) & rows(frame, parts.training)


def test_logged_rows_are_split_by_their_time_and_the_reference_is_not_held_out() -> None:
    frame = iris.load()
    times = pd.Series(pd.NaT, index=frame.index, dtype="datetime64[us, UTC]")
    times.iloc[50:] = pd.date_range("2026-11-20", periods=100, freq="min", tz="UTC")[::-1]
    parts = split(iris.MODEL, frame.assign(ts=times))
    assert parts.ordered
    assert set(parts.held_out) == set(range(50, 75))  # the newest quarter of what was logged
    assert set(parts.training) & set(range(75, 150)) == set(range(75, 150))


def test_a_first_version_below_the_floor_is_not_registered(loop: Loop) -> None:
    loop.spec = loop.spec.model_copy(update={"candidates": (DUMMY,)})
    trained = loop.train(loop.snapshot())
    evidence = loop.gate(trained["run_id"])
    assert evidence["verdict"] == "fail"
    assert evidence["rule"] == "floor"
    with pytest.raises(ConflictError, match="did not pass"):
        loop.register(trained["run_id"], evidence)
    assert not loop.tracker.registered


@pytest.mark.parametrize("reason", ["data", "drift", "scheduled", "manual"])
def test_a_worse_challenger_is_rejected(loop: Loop, reason: str) -> None:
    loop.first_champion()
    loop.spec = loop.spec.model_copy(update={"candidates": (DUMMY,)})
    trained = loop.train(loop.snapshot(), "manual")
    evidence = loop.gate(trained["run_id"], reason)
    assert evidence["verdict"] == "fail"
    assert evidence["champion_version"] == "1"
    assert evidence["improvement"] < -0.3
    with pytest.raises(ConflictError):
        loop.register(trained["run_id"], evidence)


def test_a_better_challenger_is_accepted_even_if_superiority_is_asked(loop: Loop) -> None:
    good = loop.spec
    loop.spec = good.model_copy(update={"candidates": (DUMMY,), "metric": Metric(name="accuracy", floor=0.1)})
    loop.first_champion()
    loop.spec = good
    evidence = loop.gate(loop.train(loop.snapshot(), "manual")["run_id"], "drift")
    assert evidence["rule"] == "superiority"
    assert evidence["verdict"] == "pass"
    assert evidence["lower_bound"] > 0


def test_the_gate_gives_the_same_evidence_again_and_leaves_it_on_the_run(loop: Loop) -> None:
    run_id = loop.train(loop.snapshot())["run_id"]
    first = loop.gate(run_id)
    assert loop.gate(run_id) == first
    assert [one.kind for one in loop.decisions.rows] == ["gate"]
    run = loop.tracker.run(run_id)
    assert run.tags["slipway.gate"] == "pass"
    assert run.metrics["gate_challenger"] == first["challenger"]


def test_registering_twice_gives_one_version_and_leaves_the_aliases_alone(loop: Loop) -> None:
    version = loop.first_champion()
    run_id = version.run_id
    loop.tracker.aliases.pop(("iris", "challenger"))
    again = loop.register(run_id, loop.gate(run_id))
    assert again.version == version.version
    assert again.aliases in (("champion",), ("champion", "challenger"))


def test_a_version_says_where_it_comes_from(loop: Loop) -> None:
    tags = loop.first_champion().tags
    assert tags["slipway.code_commit"] == "0" * 40
    assert tags["slipway.format"] == "onnx"
    assert len(tags["slipway.snapshot"]) == len(tags["slipway.model_sha256"]) == 64
    assert float(tags["slipway.metric_value"]) > 0.85


def test_slices_of_the_spec_are_judged(loop: Loop) -> None:
    policy = GatePolicy(slices=("petal_width",), slice_min_rows=1)
    loop.spec = loop.spec.model_copy(update={"gate": policy})
    loop.first_champion()
    trained = loop.train(loop.snapshot(), "manual")
    loop.decisions.rows.clear()
    found = loop.gate(trained["run_id"], "data")["slices"]
    assert {one["slice"] for one in found} <= {f"petal_width quarter {index}" for index in (1, 2, 3, 4)}
    assert found
