"""The model of a bento behind one method, `infer(rows)`: ONNX Runtime, or skops with a reviewed type list."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from predictor.reviewed import REVIEWED
from predictor.schema import Row, Schema

__all__ = ["CHUNK_ROWS", "Model", "ModelError", "NotFiniteError", "Outcome", "join", "load_model"]

# ONNX Runtime's tree ensembles are fastest in chunks of this order, and a chunk bounds the memory of a batch.
CHUNK_ROWS = 1000

Feed = dict[str, Any]


class ModelError(RuntimeError):
    """The artefact cannot be loaded or does not fit its schema."""


class NotFiniteError(ValueError):
    """The model has no finite answer for a row; the row's index is the argument."""


@dataclass(frozen=True)
class Outcome:
    """Predictions in row order; `probabilities` in the order of the target's classes, None for regression."""

    predictions: list[Any]
    probabilities: list[list[float]] | None


class Model(Protocol):
    """One loaded model."""

    def infer(self, rows: Sequence[Row]) -> Outcome:
        """Any number of rows; may be called from several threads."""
        ...

    def infer_one(self, row: Row) -> Outcome:
        """A single row, as fast as can be; for one thread only, and always the same."""
        ...


def load_model(folder: Path, schema: Schema) -> Model:
    """The model of an artefact folder.

    Raises:
        ModelError: no model file, or one that does not fit the schema.
    """
    if (folder / "model.onnx").is_file():
        return OnnxModel(folder / "model.onnx", schema)
    if (folder / "model.skops").is_file():
        return SkopsModel(folder / "model.skops", folder / "types.json", schema)
    raise ModelError("the bento holds neither model.onnx nor model.skops")


class OnnxModel:
    """ONNX Runtime with one thread: at microseconds a row, handing work to other threads costs more than it saves."""

    def __init__(self, path: Path, schema: Schema) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has one exception class per status code, without a public base
            raise ModelError(f"model.onnx cannot be loaded: {type(error).__name__}") from error
        self._run = session.run
        self._outputs = [output.name for output in session.get_outputs()]
        self._feed = _feed_builder(session.get_inputs(), schema)
        self._read = _classes_reader(schema.target.classes) if schema.target.classes else _read_numbers
        self._bound = _bind_one_row(session, schema)

    def infer_one(self, row: Row) -> Outcome:
        if self._bound is None:
            return self._read(self._run(self._outputs, self._feed((row,))))
        return self._read(self._bound(row))

    def infer(self, rows: Sequence[Row]) -> Outcome:
        if len(rows) <= CHUNK_ROWS:
            return self._read(self._run(self._outputs, self._feed(rows)))
        parts = [self.infer(rows[start : start + CHUNK_ROWS]) for start in range(0, len(rows), CHUNK_ROWS)]
        return join(parts)


def _bind_one_row(session: Any, schema: Schema) -> Callable[[Row], list[Any]] | None:
    """A call for single rows that reads and writes the same few arrays each time, in half of the time of a plain one.

    None for models whose tensors are not plain numbers, or not shaped as this code makes them.
    """
    inputs, outputs = session.get_inputs(), session.get_outputs()
    width, classes = len(schema.features), len(schema.target.classes or ())
    if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not all(one.numeric for one in schema.features):
        return None
    shapes = [((1,), np.int64), ((1, classes), np.float32)] if classes else [((1, 1), np.float32)]
    kinds = ["tensor(int64)", "tensor(float)"] if classes else ["tensor(float)"]
    if [output.type for output in outputs] != kinds or list(outputs[-1].shape[1:]) != [classes or 1]:
        return None
    given = np.zeros((1, width), np.float32)
    taken = [np.zeros(shape, dtype) for shape, dtype in shapes]
    binding = session.io_binding()
    binding.bind_input(inputs[0].name, "cpu", 0, np.float32, given.shape, given.ctypes.data)
    for output, array in zip(outputs, taken, strict=True):
        binding.bind_output(output.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    run = session.run_with_iobinding

    def call(row: Row) -> list[Any]:
        given[0] = row
        run(binding)
        return taken

    return call


def join(parts: Sequence[Outcome]) -> Outcome:
    """Outcomes one after the other as one."""
    predictions = [value for part in parts for value in part.predictions]
    if parts[0].probabilities is None:
        return Outcome(predictions, None)
    return Outcome(predictions, [row for part in parts for row in part.probabilities or ()])


def _feed_builder(inputs: Sequence[Any], schema: Schema) -> Callable[[Sequence[Row]], Feed]:
    """How rows become the tensors that the graph wants.

    A graph has either one float tensor of all numeric features (and one string tensor of all others), or
    one column tensor per feature, named like it.
    """
    numeric = [index for index, feature in enumerate(schema.features) if feature.numeric]
    if len(inputs) == 1 and len(numeric) == len(schema.features) and inputs[0].type == "tensor(float)":
        name = inputs[0].name
        return lambda rows: {name: np.array(rows, np.float32)}
    textual = [index for index, feature in enumerate(schema.features) if not feature.numeric]
    names = list(schema.names)
    plans: list[tuple[str, list[int], Any]] = []
    for tensor in inputs:
        dtype = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(int64)": np.int64}.get(tensor.type)
        if tensor.name in names:
            columns = [names.index(tensor.name)]
        else:
            columns = textual if tensor.type == "tensor(string)" else numeric
        width = tensor.shape[-1] if tensor.shape else None
        if isinstance(width, int) and width != len(columns):
            raise ModelError(f"input {tensor.name!r} of the model takes {width} columns, the schema has {len(columns)}")
        # Strings stay Python objects: a NumPy string array is as wide as its longest text in every row.
        plans.append((tensor.name, columns, dtype or object))

    def feed(rows: Sequence[Row]) -> Feed:
        return {
            name: np.array([[_present(row[i], dtype) for i in columns] for row in rows], dtype)
            for name, columns, dtype in plans
        }

    return feed


def _present(value: Any, dtype: Any) -> Any:
    return "" if value is None and dtype is object else value


def _classes_reader(classes: Sequence[str]) -> Callable[[Sequence[Any]], Outcome]:
    names = list(classes)

    def read(outputs: Sequence[Any]) -> Outcome:
        matrix = outputs[-1] if len(outputs) > 1 or outputs[0].ndim > 1 else None
        probabilities = None if matrix is None else matrix.tolist()
        if len(outputs) == 1 and matrix is not None:
            return Outcome([names[index] for index in matrix.argmax(axis=1).tolist()], probabilities)
        labels = outputs[0].ravel().tolist()
        return Outcome([names[label] if isinstance(label, int) else label for label in labels], probabilities)

    return read


def _read_numbers(outputs: Sequence[Any]) -> Outcome:
    values = outputs[0].ravel().tolist()
    for index, value in enumerate(values):
        if not math.isfinite(value):
            raise NotFiniteError(index)
    return Outcome(values, None)


class SkopsModel:
    """A scikit-learn estimator that ONNX cannot carry, restored from types that a person reviewed."""

    def __init__(self, path: Path, types_path: Path, schema: Schema) -> None:
        import skops.io

        try:
            trusted = json.loads(types_path.read_text()) if types_path.is_file() else []
            foreign = sorted(set(trusted) - REVIEWED)
            if foreign:  # the bento names the types that it needs, it does not decide which are trusted
                raise ModelError(f"types that nobody reviewed: {', '.join(foreign)}")
            self._estimator = skops.io.load(path, trusted=trusted)
        except Exception as error:  # skops raises whatever the restored class raises
            raise ModelError(f"model.skops cannot be loaded: {type(error).__name__}: {error}") from error
        self._numeric = all(feature.numeric for feature in schema.features)
        self._classes = schema.target.classes
        self._order: list[int] | None = None
        if self._classes and hasattr(self._estimator, "predict_proba"):
            known = [self._name(value) for value in self._estimator.classes_]
            if sorted(known) != sorted(self._classes):
                raise ModelError("the model's classes differ from the schema's")
            self._order = [known.index(name) for name in self._classes]

    def _name(self, value: Any) -> str:
        """A class as the schema calls it; models may be fitted on names or on indexes."""
        return str(value) if isinstance(value, str) or self._classes is None else self._classes[int(value)]

    def infer_one(self, row: Row) -> Outcome:
        return self.infer((row,))

    def infer(self, rows: Sequence[Row]) -> Outcome:
        if len(rows) > CHUNK_ROWS:
            return join([self.infer(rows[start : start + CHUNK_ROWS]) for start in range(0, len(rows), CHUNK_ROWS)])
        matrix = np.array(rows, np.float64 if self._numeric else object)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an array where the estimator was fitted on a named frame
            if self._order is not None:
                probabilities = self._estimator.predict_proba(matrix)[:, self._order]
                classes = self._classes or ()
                return Outcome([classes[index] for index in probabilities.argmax(axis=1)], probabilities.tolist())
            values = self._estimator.predict(matrix)
        if self._classes:
            return Outcome([self._name(value) for value in values.tolist()], None)
        return _read_numbers([np.asarray(values, np.float64)])
