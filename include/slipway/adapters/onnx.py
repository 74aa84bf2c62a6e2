"""Model files that load without executing code: ONNX where it answers as scikit-learn does, skops otherwise.

A folder holds `model.onnx`, or `model.skops` with `types.json`, and `schema.json`, which names the features in the
model's order. ONNX models take one float32 tensor, so their inputs are rounded: a value that lies within that rounding
of a tree's threshold after a scaler may fall on its other side. That is why every export is compared on real rows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from slipway.adapters import skops
from slipway.adapters.tree_order import busiest_features, visiting_order
from slipway.core.encoding import NUMERIC_KINDS, class_names, feature_matrix
from slipway.core.metrics import Predictions
from slipway.errors import ArtefactError
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TOLERANCE", "OnnxModelFiles", "native_predictions"]

_log = logging.getLogger(__name__)
TOLERANCE = 1e-5
_CHUNK_ROWS = 1000  # ONNX Runtime's tree ensembles are fastest in chunks of this order
_SORTED_FROM_ROWS = 10_000  # below, sorting costs what it brings


class OnnxModelFiles:
    """The `ModelFiles` port."""

    def write(self, spec: ModelSpec, fitted: Any, rows: pd.DataFrame, folder: Path) -> Mapping[str, Any]:
        """Write everything that a server or a gate needs below `folder`.

        `model/` holds the model in its serving format, `schema.json` and `golden.json`; `model/native/` holds the
        scikit-learn estimator as skops when the serving format is ONNX.

        Args:
            fitted: on `feature_matrix`; classifiers on class indices.
            rows: on which the export must answer as the estimator does.

        Returns:
            format, sha256 of the model file, the largest difference, and why it is not ONNX where it is not.
        """
        model = folder / "model"
        model.mkdir(parents=True, exist_ok=True)
        (model / "schema.json").write_text(json.dumps(spec.serving_schema(), indent=1))
        (model / "golden.json").write_text(json.dumps(_golden(spec, fitted), indent=1))
        content, difference, obstacle = _export(spec, fitted, rows)
        if content is None:
            _log.warning("%s is kept as skops: %s", spec.name, obstacle)
            skops.dump(fitted, model)
        else:
            (model / "model.onnx").write_bytes(content)
            _dump_native(fitted, model / "native")
        name = "model.skops" if content is None else "model.onnx"
        return {
            "format": name.removeprefix("model."),
            "sha256": hashlib.sha256((model / name).read_bytes()).hexdigest(),
            "max_difference": difference,
            "obstacle": obstacle,
        }

    def read(self, folder: Path) -> _OnnxScorer | _SkopsScorer:
        """The scorer of a folder that `write` made.

        Raises:
            ArtefactError: a file is missing or damaged.
        """
        try:
            schema = json.loads((folder / "schema.json").read_text())
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{folder.name}/schema.json cannot be read; train again") from error
        if (folder / "model.onnx").is_file():
            return _OnnxScorer((folder / "model.onnx").read_bytes(), schema)
        if (folder / "model.skops").is_file():
            return _SkopsScorer(skops.load(folder), schema)
        raise ArtefactError(f"{folder.name} holds neither model.onnx nor model.skops; train again")

    def read_estimator(self, spec: ModelSpec, folder: Path) -> Any:
        """The scikit-learn estimator of a folder that `write` made, to be trained further.

        Raises:
            ArtefactError: it is missing or damaged, or was fitted on other features or classes than the spec's.
        """
        try:
            schema = json.loads((folder / "schema.json").read_text())
        except (OSError, ValueError) as error:
            raise ArtefactError(f"{folder.name}/schema.json cannot be read; train again") from error
        wanted = spec.serving_schema()
        if _features(schema) != _features(wanted) or schema["target"]["classes"] != wanted["target"]["classes"]:
            raise ArtefactError("it was fitted on other features or classes")
        for native in (folder / "native", folder):
            if (native / "model.skops").is_file():
                return skops.load(native)
        raise ArtefactError(f"{folder.name} holds no model.skops")


def native_predictions(task: str, fitted: Any, matrix: NDArray[Any]) -> Predictions:
    """What the scikit-learn estimator itself answers."""
    values = np.asarray(fitted.predict(matrix))
    if task == "regression":
        return Predictions(values.astype(np.float64).ravel())
    probabilities = np.asarray(fitted.predict_proba(matrix)) if hasattr(fitted, "predict_proba") else None
    return Predictions(values.astype(np.int64), probabilities)


class _SkopsScorer:
    format: Literal["onnx", "skops"] = "skops"

    def __init__(self, estimator: Any, schema: Mapping[str, Any]) -> None:
        self._estimator, self._task, self._features = estimator, str(schema["task"]), _features(schema)

    def predict(self, frame: pd.DataFrame) -> Predictions:
        return native_predictions(self._task, self._estimator, feature_matrix(self._features, frame))


class _OnnxScorer:
    format: Literal["onnx", "skops"] = "onnx"

    def __init__(self, content: bytes, schema: Mapping[str, Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has one exception class per status code, without a public base
            raise ArtefactError(f"model.onnx cannot be loaded ({type(error).__name__}); train again") from error
        self._task, self._features = str(schema["task"]), _features(schema)
        self._content: bytes | None = content
        self._busiest: tuple[int, ...] = ()

    def predict(self, frame: pd.DataFrame) -> Predictions:
        return self.answer(feature_matrix(self._features, frame))

    def answer(self, matrix: NDArray[Any]) -> Predictions:
        rounded = np.ascontiguousarray(matrix, dtype=np.float32)
        if len(rounded) < _SORTED_FROM_ROWS:
            return self._answer(rounded)
        if self._content is not None:
            self._busiest, self._content = busiest_features(self._content), None
        if not self._busiest:
            return self._answer(rounded)
        order = visiting_order(rounded, self._busiest)
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        found = self._answer(rounded[order])
        return Predictions(found.values[back], None if found.probabilities is None else found.probabilities[back])

    def _answer(self, rounded: NDArray[np.float32]) -> Predictions:
        name = self._session.get_inputs()[0].name
        starts = range(0, max(len(rounded), 1), _CHUNK_ROWS)
        parts = [self._session.run(None, {name: rounded[start : start + _CHUNK_ROWS]}) for start in starts]
        values = np.concatenate([np.asarray(part[0]).ravel() for part in parts])
        if self._task == "regression":
            return Predictions(values.astype(np.float64))
        probabilities = np.concatenate([np.asarray(part[1], dtype=np.float64) for part in parts])
        return Predictions(values.astype(np.int64), probabilities)


def _features(schema: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(feature["name"]), str(feature["kind"])) for feature in schema["features"]]


def _export(spec: ModelSpec, fitted: Any, rows: pd.DataFrame) -> tuple[bytes | None, float | None, str | None]:
    """The ONNX file, the largest difference to the estimator on `rows`, and the obstacle where there is no file."""
    if not all(feature.kind in NUMERIC_KINDS for feature in spec.features):
        return None, None, "it has features that are no numbers"
    if spec.task == "classification" and not hasattr(fitted, "predict_proba"):
        return None, None, "the classifier gives no probabilities"
    try:
        content = _convert(spec, fitted)
        scorer = _OnnxScorer(content, spec.serving_schema())
        matrix = feature_matrix([(feature.name, feature.kind) for feature in spec.features], rows)
        got, expected = scorer.answer(matrix), native_predictions(spec.task, fitted, matrix)
    except Exception as error:  # converters raise their own types, none of them public
        return None, None, f"it does not convert ({type(error).__name__}: {str(error).splitlines()[0][:200]})"
    difference = _difference(got, expected)
    if not difference <= TOLERANCE:
        return None, difference, f"its ONNX answers differ by up to {difference:.3g}, allowed {TOLERANCE:g}"
    return content, difference, None


def _convert(spec: ModelSpec, fitted: Any) -> bytes:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    options = {"zipmap": False} if spec.task == "classification" else None
    inputs = [("input", FloatTensorType([None, len(spec.features)]))]
    with _plain_attributes():
        graph = to_onnx(fitted, initial_types=inputs, options=options, target_opset=18, name=spec.name)
    return bytes(graph.SerializeToString())


@contextmanager
def _plain_attributes() -> Iterator[None]:
    """skl2onnx 1.20 hands ONNX booleans where it wants integers, and arrays of one number where it wants numbers."""
    from skl2onnx.common._container import ModelComponentContainer

    real = ModelComponentContainer.add_node

    def add_node(self: Any, *arguments: Any, **attributes: Any) -> Any:
        return real(self, *arguments, **{name: _plain(value) for name, value in attributes.items()})

    ModelComponentContainer.add_node = add_node
    try:
        yield
    finally:
        ModelComponentContainer.add_node = real


def _plain(value: Any) -> Any:
    if isinstance(value, list) and value:
        if any(isinstance(one, (bool, np.bool_)) for one in value):
            return [int(one) for one in value]
        if isinstance(value[0], np.ndarray) and value[0].size == 1:
            return [float(one.item()) for one in value]
    return value


def _difference(got: Predictions, expected: Predictions) -> float:
    """Largest difference; of numbers above 1 the relative one. A class that differs without a tie: inf."""
    if expected.probabilities is None:
        scale = np.maximum(1.0, np.abs(expected.values))
        return float((np.abs(got.values - expected.values) / scale).max(initial=0.0))
    if got.probabilities is None:
        return float("inf")
    row = np.arange(len(expected.values))
    ahead = expected.probabilities[row, expected.values] - expected.probabilities[row, got.values]
    if (ahead > TOLERANCE).any():
        return float("inf")
    return float(np.abs(got.probabilities - expected.probabilities).max(initial=0.0))


def _golden(spec: ModelSpec, fitted: Any) -> dict[str, Any]:
    """The golden rows with the answers of the estimator itself, whatever format is served."""
    import pandas as pd

    frame = pd.DataFrame(list(spec.golden_rows), columns=list(spec.feature_names))
    matrix = feature_matrix([(feature.name, feature.kind) for feature in spec.features], frame)
    answers = native_predictions(spec.task, fitted, matrix)
    classes = spec.target.classes
    values = answers.values.tolist() if classes is None else class_names(classes, answers.values).tolist()
    return {
        "rows": [dict(row) for row in spec.golden_rows],
        "predictions": values,
        "probabilities": None if answers.probabilities is None else answers.probabilities.tolist(),
        "tolerance": TOLERANCE,
    }


def _dump_native(fitted: Any, folder: Path) -> None:
    """The estimator beside its ONNX form is for people; a type that nobody reviewed is no reason to fail."""
    folder.mkdir(exist_ok=True)
    try:
        skops.dump(fitted, folder)
    except ArtefactError as error:
        _log.warning("%s; only its ONNX form is kept", error)
        shutil.rmtree(folder)
