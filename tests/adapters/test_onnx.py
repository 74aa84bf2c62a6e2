"""Model files: ONNX where it answers as scikit-learn does, skops otherwise, and nothing that executes code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from fleet import iris
from slipway.adapters import skops
from slipway.adapters.onnx import TOLERANCE, OnnxModelFiles, native_predictions
from slipway.core.encoding import encode_target, feature_matrix
from slipway.errors import ArtefactError
from slipway.spec import Candidate, Feature, Metric, ModelSpec, Target

SPEC = iris.MODEL
FRAME = iris.load()
FEATURES = [(feature.name, feature.kind) for feature in SPEC.features]
MATRIX = feature_matrix(FEATURES, FRAME)
TRUTH = encode_target(SPEC.target.classes, FRAME["species"].to_numpy())
FILES = OnnxModelFiles()


def uniform(rows: int, seed: int = 0) -> pd.DataFrame:
    drawn = np.random.default_rng(seed).uniform(MATRIX.min(0), MATRIX.max(0), (rows, 4))
    return pd.DataFrame(drawn, columns=list(SPEC.feature_names))


@pytest.mark.parametrize("candidate", SPEC.candidates, ids=lambda candidate: candidate.name)
def test_every_iris_candidate_becomes_onnx_and_answers_alike(candidate: Candidate, tmp_path: Path) -> None:
    fitted = candidate.build().fit(MATRIX, TRUTH)
    about = FILES.write(SPEC, fitted, FRAME, tmp_path)
    assert about["format"] == "onnx"
    assert about["max_difference"] <= TOLERANCE
    rows = uniform(3000)
    got = FILES.read(tmp_path / "model").predict(rows)
    expected = native_predictions("classification", fitted, feature_matrix(FEATURES, rows))
    assert got.probabilities is not None
    assert expected.probabilities is not None
    np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=TOLERANCE)


def test_rows_on_a_trees_threshold_fall_on_the_same_side(tmp_path: Path) -> None:
    fitted = RandomForestClassifier(20, random_state=1).fit(MATRIX, TRUTH)
    FILES.write(SPEC, fitted, FRAME, tmp_path)
    rows = []
    for tree in fitted.estimators_:
        for feature, threshold in zip(tree.tree_.feature, tree.tree_.threshold, strict=True):
            near = np.float32(threshold)
            for value in (threshold, near, np.nextafter(near, np.float32(-1)), np.nextafter(near, np.float32(99))):
                if feature >= 0:
                    row = MATRIX[len(rows) % 150].copy()
                    row[feature] = value
                    rows.append(row)
    frame = pd.DataFrame(rows, columns=list(SPEC.feature_names))
    got = FILES.read(tmp_path / "model").predict(frame)
    expected = native_predictions("classification", fitted, feature_matrix(FEATURES, frame))
    assert len(frame) > 500
    assert got.probabilities is not None
    np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=TOLERANCE)


def test_golden_answers_are_the_estimators_own(tmp_path: Path) -> None:
    fitted = SPEC.candidates[2].build().fit(MATRIX, TRUTH)
    FILES.write(SPEC, fitted, FRAME, tmp_path)
    golden = json.loads((tmp_path / "model" / "golden.json").read_text())
    matrix = np.array([[row[name] for name in SPEC.feature_names] for row in golden["rows"]])
    assert golden["predictions"] == ["setosa", "versicolor", "virginica"]
    np.testing.assert_array_equal(golden["probabilities"], fitted.predict_proba(matrix))


def test_what_onnx_cannot_carry_is_kept_as_skops_and_answers_exactly(tmp_path: Path) -> None:
    fitted = make_pipeline(FunctionTransformer(np.log1p), LogisticRegression()).fit(MATRIX, TRUTH)
    about = FILES.write(SPEC, fitted, FRAME, tmp_path)
    assert about["format"] == "skops"
    assert "does not convert" in about["obstacle"]
    got = FILES.read(tmp_path / "model").predict(FRAME)
    expected = native_predictions("classification", fitted, MATRIX)
    assert got.probabilities is not None
    np.testing.assert_array_equal(got.probabilities, expected.probabilities)


def test_an_export_that_answers_differently_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from slipway.adapters import onnx

    other = SPEC.candidates[2].build().fit(MATRIX[::2], TRUTH[::2])
    convert = onnx._convert
    monkeypatch.setattr(onnx, "_convert", lambda spec, fitted: convert(spec, other))
    about = FILES.write(SPEC, SPEC.candidates[2].build().fit(MATRIX, TRUTH), FRAME, tmp_path)
    assert about["format"] == "skops"
    assert "differ" in about["obstacle"]
    assert not (tmp_path / "model" / "model.onnx").exists()


def test_regression_is_compared_relative_to_its_size(tmp_path: Path) -> None:
    spec = ModelSpec(
        name="income",
        task="regression",
        description="A number in the hundred thousands.",
        features=SPEC.features,
        target=Target(name="income"),
        loader=iris.load,
        candidates=(Candidate(name="forest", build=lambda: RandomForestRegressor(20, random_state=0)),),
        metric=Metric(name="rmse", floor=1e6),
        golden_rows=SPEC.golden_rows,
    )
    fitted = spec.candidates[0].build().fit(MATRIX, MATRIX.sum(axis=1) * 1e5 / 3)
    assert FILES.write(spec, fitted, FRAME, tmp_path)["format"] == "onnx"
    got = FILES.read(tmp_path / "model").predict(FRAME)
    assert got.probabilities is None
    np.testing.assert_allclose(got.values, fitted.predict(MATRIX), rtol=1e-5)


def test_categories_go_by_skops(tmp_path: Path) -> None:
    spec = SPEC.model_copy(
        update={
            "features": (Feature(name="colour", kind="category", categories=("red", "blue")),),
            "golden_rows": ({"colour": "red"},),
        }
    )
    frame = pd.DataFrame({"colour": ["red", "blue", "blue"] * 50})
    pipeline = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression())
    fitted = pipeline.fit(feature_matrix([("colour", "category")], frame), TRUTH)
    assert FILES.write(spec, fitted, frame, tmp_path)["format"] == "skops"
    assert (
        FILES.read(tmp_path / "model").predict(frame).values.tolist() == fitted.predict(frame.to_numpy(object)).tolist()
    )


class Foreign:
    """An estimator with a type that nobody reviewed."""

    def predict(self, matrix: Any) -> Any:
        return np.zeros(len(matrix), dtype=int)


def test_a_type_that_nobody_reviewed_is_refused_on_both_sides(tmp_path: Path) -> None:
    import skops.io as skops_io

    with pytest.raises(ArtefactError, match=r"Foreign.*nobody reviewed|nobody reviewed.*Foreign"):
        skops.dump(Foreign(), tmp_path)
    skops_io.dump(Foreign(), tmp_path / "model.skops")
    (tmp_path / "types.json").write_text('["test_onnx.Foreign"]')  # what a file says about itself does not count
    with pytest.raises(ArtefactError, match="nobody reviewed"):
        skops.load(tmp_path)


@pytest.mark.parametrize("name", ["model.onnx", "schema.json"])
def test_damaged_files_are_reported_and_pickles_are_not_even_looked_at(name: str, tmp_path: Path) -> None:
    FILES.write(SPEC, SPEC.candidates[2].build().fit(MATRIX, TRUTH), FRAME, tmp_path)
    model = tmp_path / "model"
    (model / name).write_bytes(b"broken")
    with pytest.raises(ArtefactError, match="train again"):
        FILES.read(model)
    (model / name).unlink()
    (model / "model.pkl").write_bytes(b"cos\nsystem\n.")
    with pytest.raises(ArtefactError, match="train again"):
        FILES.read(model)


def test_many_rows_are_answered_in_their_own_order(tmp_path: Path) -> None:
    source = iris.load()
    matrix = source[list(iris.MODEL.feature_names)].to_numpy()
    codes = source["species"].map({name: code for code, name in enumerate(iris.MODEL.target.classes or ())})
    forest = iris.forest_50().fit(matrix, codes)
    OnnxModelFiles().write(iris.MODEL, forest, source, tmp_path)
    scorer = OnnxModelFiles().read(tmp_path / "model")
    random = np.random.default_rng(0)
    many = source.iloc[random.integers(0, len(source), 20_000)].reset_index(drop=True)
    few = [scorer.predict(many.iloc[first : first + 5_000]) for first in range(0, 20_000, 5_000)]
    answers = scorer.predict(many)
    assert np.array_equal(answers.values, np.concatenate([one.values for one in few]))
    assert np.array_equal(answers.probabilities, np.concatenate([one.probabilities for one in few]))
