"""The two ways to hold a model, and graphs of other shapes than one float matrix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bento_cases import CLASSES, ROW, ROW_2, iris_schema, linear_classifier, softmax
from predictor.model import CHUNK_ROWS, ModelError, load_model
from predictor.reviewed import REVIEWED
from predictor.schema import Schema


def schema(**changes: Any) -> Schema:
    import msgspec

    return msgspec.convert({**iris_schema(), **changes}, Schema)


def test_onnx_gives_names_and_probabilities_in_chunks_of_any_size(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(linear_classifier())
    model = load_model(tmp_path, schema())
    rows = [tuple(ROW.values()), tuple(ROW_2.values())]
    many = model.infer(rows * CHUNK_ROWS)
    assert many.predictions == ["setosa", "virginica"] * CHUNK_ROWS
    assert np.allclose(many.probabilities, np.tile(softmax([ROW, ROW_2]), (CHUNK_ROWS, 1)), atol=1e-6)


def test_a_graph_with_one_column_per_feature_gets_columns(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info("length", TensorProto.FLOAT, [None, 1]),
        helper.make_tensor_value_info("colour", TensorProto.STRING, [None, 1]),
    ]
    nodes = [
        helper.make_node(
            "LabelEncoder", ["colour"], ["code"], domain="ai.onnx.ml",
            keys_strings=["red", "blue"], values_floats=[10.0, 20.0], default_float=-1.0,
        ),
        helper.make_node("Add", ["length", "code"], ["variable"]),
    ]  # fmt: skip
    outputs = [helper.make_tensor_value_info("variable", TensorProto.FLOAT, [None, 1])]
    graph = helper.make_graph(nodes, "mixed", inputs, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    content = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content)
    features = [
        {"name": "colour", "kind": "category", "categories": ["red", "blue"]},
        {"name": "length", "kind": "number"},
    ]
    model = load_model(tmp_path, schema(task="regression", features=features, target={"name": "y"}))
    assert model.infer([("red", 1.5), ("blue", 2.0)]).predictions == [11.5, 22.0]


def test_a_graph_of_another_width_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(linear_classifier())
    features = [{"name": "a"}, {"name": "b", "kind": "text"}]
    with pytest.raises(ModelError, match="takes 4 columns, the schema has 1"):
        load_model(tmp_path, schema(features=features))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither"):
        load_model(tmp_path, schema())


@pytest.mark.parametrize("codes", [True, False])
def test_skops_restores_a_classifier_fitted_on_names_or_codes(tmp_path: Path, codes: bool) -> None:
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.tree import DecisionTreeClassifier

    values, target = load_iris(return_X_y=True)
    estimator = DecisionTreeClassifier(random_state=7).fit(values, target if codes else np.array(CLASSES)[target])
    skops.io.dump(estimator, tmp_path / "model.skops")
    (tmp_path / "types.json").write_text(json.dumps(["sklearn.tree._tree.Tree"]))
    outcome = load_model(tmp_path, schema()).infer([tuple(ROW.values()), tuple(ROW_2.values())])
    assert outcome.predictions == ["setosa", "virginica"]
    assert outcome.probabilities == [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]


def test_skops_refuses_a_type_that_nobody_reviewed(tmp_path: Path) -> None:
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.tree import DecisionTreeClassifier

    skops.io.dump(DecisionTreeClassifier().fit(*load_iris(return_X_y=True)), tmp_path / "model.skops")
    with pytest.raises(ModelError, match=r"model\.skops cannot be loaded"):
        load_model(tmp_path, schema())


def test_a_bento_does_not_decide_itself_which_types_are_trusted(tmp_path: Path) -> None:
    import skops.io
    from sklearn.datasets import load_iris
    from sklearn.tree import DecisionTreeClassifier

    skops.io.dump(DecisionTreeClassifier().fit(*load_iris(return_X_y=True)), tmp_path / "model.skops")
    (tmp_path / "types.json").write_text(json.dumps(["sklearn.tree._tree.Tree", "os.system"]))
    with pytest.raises(ModelError, match=r"types that nobody reviewed: os\.system"):
        load_model(tmp_path, schema())


def test_server_and_pipeline_reviewed_the_same_types() -> None:
    from slipway.adapters import skops

    assert REVIEWED == skops.REVIEWED


def test_skops_restores_a_regressor(tmp_path: Path) -> None:
    import skops.io
    from sklearn.linear_model import LinearRegression

    values = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    skops.io.dump(LinearRegression().fit(values, [1.0, 3.0, 4.0]), tmp_path / "model.skops")
    features = [{"name": "a"}, {"name": "b"}]
    model = load_model(tmp_path, schema(task="regression", features=features, target={"name": "y"}))
    assert model.infer([(1.0, 1.0)]).predictions == pytest.approx([6.0])
    assert model.infer([(1.0, 1.0)]).probabilities is None
