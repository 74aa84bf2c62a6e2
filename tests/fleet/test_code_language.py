"""The text model through every step of the loop, on twins and with few snippets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from contracts.lake_twin import LakeTwin
from fleet import code_language
from jobs.loop_cases import Loop
from predictor.model import load_model as load_served
from predictor.schema import Schema
from slipway.core.encoding import feature_matrix
from slipway.core.text_features import text_columns
from slipway.errors import DataError, QuarantineError
from slipway.jobs.finetune import find_start
from slipway.jobs.simulate import _draw, _payloads, parse_shifts
from slipway.ports import ModelVersion
from slipway.spec import ModelSpec

FEW = 40


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return code_language.load(FEW)


@pytest.fixture
def spec(rows: pd.DataFrame) -> ModelSpec:
    drift = code_language.MODEL.drift.model_copy(update={"null_windows": 100})
    return code_language.MODEL.model_copy(update={"loader": lambda: rows.copy(), "drift": drift})


@pytest.fixture
def loop(spec: ModelSpec) -> Loop:
    return Loop(spec=spec)


def test_the_rows_are_balanced_distinct_and_the_same_each_time(rows: pd.DataFrame) -> None:
    assert rows["language"].value_counts().to_dict() == dict.fromkeys(code_language.LANGUAGES, FEW)
    assert rows["text"].is_unique
    lines = rows["text"].str.count("\n") + 1
    assert lines.between(5, 30).all()
    assert rows["text"].str.len().max() <= code_language.MODEL.features[0].max_length
    assert not rows["text"].str.lower().str.contains("licen").any()
    pd.testing.assert_frame_equal(code_language.load(FEW), rows)


def test_too_few_snippets_are_said() -> None:
    with pytest.raises(ValueError, match=r"the packages hold \d+ snippets of c, not 100000"):
        code_language.load(100_000)


@pytest.mark.slow
def test_from_the_loader_to_a_fine_tuned_champion(loop: Loop, tmp_path: Path) -> None:
    taken = loop.snapshot()
    assert loop.validate(taken)["verdict"] == "passed"
    first = loop.first_champion()
    assert first.tags["slipway.format"] == "skops"
    assert "slipway.finetuned_from" not in first.tags
    assert float(first.tags["slipway.metric_value"]) > 0.8

    loop.traffic(300, labels=True, shifts={"text": 0.95})
    watched = loop.watch()
    assert watched["verdict"] == "drift"
    assert {column["name"] for column in watched["columns"] if column["drifted"]} >= {"text length"}
    assert set(text_columns("text")) | {"prediction"} == {column["name"] for column in watched["columns"]}
    assert not watched["confirmed"]
    decision = loop.decide(watched | {"confirmed": True})
    assert decision["verdict"] == "retrain"
    assembled = loop.assemble(decision)

    trained = loop.train(assembled, "drift")
    assert loop.train(assembled, "drift") == trained
    run = loop.tracker.run(trained["run_id"])
    assert run.tags["slipway.finetuned_from"] == first.version
    evidence = loop.gate(trained["run_id"], "drift")
    assert evidence["verdict"] == "pass", evidence["reasons"]
    version = loop.register(trained["run_id"], evidence)
    assert version.tags["slipway.finetuned_from"] == first.version

    served = load_served(_bento(loop, version.run_id), _schema(loop, version.run_id))
    golden = json.loads((_bento(loop, version.run_id) / "golden.json").read_text())
    outcome = served.infer([(row["text"],) for row in golden["rows"]])
    assert outcome.predictions == golden["predictions"]
    assert np.allclose(outcome.probabilities, golden["probabilities"], atol=1e-9)


def _bento(loop: Loop, run_id: str) -> Path:
    return Path(loop.tracker.artefacts / run_id / "model")


def _schema(loop: Loop, run_id: str) -> Schema:
    import msgspec

    return msgspec.json.decode((_bento(loop, run_id) / "schema.json").read_bytes(), type=Schema)


@pytest.fixture(scope="module")
def trained(rows: pd.DataFrame) -> tuple[Loop, ModelVersion]:
    """A loop with a first champion; tests leave it as it is."""
    loop = Loop(spec=code_language.MODEL.model_copy(update={"loader": lambda: rows.copy()}))
    return loop, loop.first_champion()


def test_fine_tuning_goes_on_from_the_champions_weights(trained: tuple[Loop, ModelVersion]) -> None:
    loop, first = trained
    before = loop.files.read_estimator(loop.spec, _bento(loop, first.run_id))
    frame = loop.spec.loader()
    fresh = frame.assign(text="x" + frame["text"])
    start = find_start(loop.spec, first, fresh, lake=loop.lake, tracker=loop.tracker, files=loop.files)
    assert start is not None
    assert start.new.all()
    rows = feature_matrix([("text", "text")], frame.iloc[:50])
    truth = np.array([code_language.LANGUAGES.index(name) for name in frame["language"].iloc[:50]])
    after = code_language.go_on(start.estimator, rows, truth)
    assert after[-1].t_ > before[-1].t_
    assert not np.array_equal(after[-1].coef_, before[-1].coef_)
    assert np.corrcoef(after[-1].coef_.ravel(), before[-1].coef_.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("broken", ["no snapshot", "few new", "other classes", "damaged", "no finetune"])
def test_what_cannot_be_fine_tuned_is_trained_anew(trained: tuple[Loop, ModelVersion], broken: str) -> None:
    loop, first = trained
    spec, frame, lake = loop.spec, loop.spec.loader(), loop.lake
    fresh = frame.assign(text="x" + frame["text"])
    file = _bento(loop, first.run_id) / "model.skops"
    intact = file.read_bytes()
    if broken == "no snapshot":
        lake = LakeTwin()
    elif broken == "few new":
        fresh = frame
    elif broken == "other classes":
        target = spec.target.model_copy(update={"classes": (spec.target.classes or ())[::-1]})
        spec = spec.model_copy(update={"target": target})
    elif broken == "damaged":
        file.write_bytes(b"")
    else:
        spec = spec.model_copy(update={"candidates": (spec.candidates[0].model_copy(update={"finetune": None}),)})
    try:
        assert find_start(spec, first, fresh, lake=lake, tracker=loop.tracker, files=loop.files) is None
    finally:
        file.write_bytes(intact)


def test_texts_that_fail_their_checks_are_quoted_in_one_plain_line(loop: Loop) -> None:
    frame = loop.spec.loader()
    frame.loc[0, "text"] = "\0\n\x1b[31m" + "x" * 6000
    loop.spec = loop.spec.model_copy(update={"loader": lambda: frame})
    with pytest.raises(QuarantineError, match="text") as caught:
        loop.validate(loop.snapshot())
    assert str(caught.value).isprintable()


def test_simulated_texts_are_drawn_from_the_loader_and_cut_by_a_shift(spec: ModelSpec) -> None:
    plain, cut = _draw(spec, 50, {}, seed=1), _draw(spec, 50, {"text": 0.5}, seed=1)
    assert set(plain["text"]) <= set(spec.loader()["text"])
    assert all(whole.startswith(part) for whole, part in zip(plain["text"], cut["text"], strict=True))
    assert (cut["text"].str.len() / plain["text"].str.len()).between(0.45, 0.55).all()
    assert all(isinstance(row["text"], str) for row in _payloads(spec, cut))
    with pytest.raises(DataError, match="the share of the text that is cut off, 0 to 1, not 2"):
        parse_shifts(spec, {"text": 2.0})


@pytest.mark.services
def test_all_rows_train_a_good_model() -> None:
    loop = Loop(spec=code_language.MODEL)
    champion = loop.first_champion()
    assert float(champion.tags["slipway.metric_value"]) > 0.93
    golden = json.loads((_bento(loop, champion.run_id) / "golden.json").read_text())
    assert golden["predictions"][:3] == ["python", "json", "sql"]
