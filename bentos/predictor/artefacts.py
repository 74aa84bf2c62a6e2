"""The artefact folder of a bento: identity, schema and golden rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from predictor.model import Model, ModelError, Outcome, load_model
from predictor.problems import Problem
from predictor.schema import RequestDecoder, Row, Schema

__all__ = ["Artefacts", "Golden", "Identity", "golden_difference", "load_artefacts"]

T = TypeVar("T")


class Identity(msgspec.Struct, frozen=True):
    """`identity.json`: which registered version this is and what it was made of."""

    model: str
    version: str
    bento_tag: str = ""
    run_id: str | None = None
    dataset_sha256: str | None = None
    code_commit: str | None = None
    format: str = "onnx"
    created_at: str | None = None


class Golden(msgspec.Struct, frozen=True):
    """`golden.json`: rows and what the model must answer to them."""

    rows: list[Any]
    predictions: list[Any]
    probabilities: list[list[float]] | None = None
    tolerance: float = 1e-5


@dataclass(frozen=True)
class Artefacts:
    """Everything loaded; `golden_rows` went through the same decoder as a request."""

    identity: Identity
    schema: Schema
    model: Model
    decoder: RequestDecoder
    golden: Golden
    golden_rows: list[Row]


def load_artefacts(folder: Path, max_rows: int) -> Artefacts:
    """Load and cross-check a folder.

    Raises:
        ModelError: a file is missing or wrong, or they do not belong together.
    """
    identity = _read(folder / "identity.json", Identity)
    schema = _read(folder / "schema.json", Schema)
    golden = _read(folder / "golden.json", Golden)
    if schema.model != identity.model:
        raise ModelError(f"schema.json is of {schema.model!r}, identity.json of {identity.model!r}")
    if not golden.rows or len(golden.rows) != len(golden.predictions):
        raise ModelError("golden.json must hold at least one row and as many predictions as rows")
    decoder = RequestDecoder(schema, max_rows)
    try:
        rows = decoder.convert([_named(row, schema) for row in golden.rows], "golden rows")
    except Problem as problem:
        raise ModelError(f"golden.json does not fit the schema: {problem.detail}") from problem
    return Artefacts(identity, schema, load_model(folder, schema), decoder, golden, rows)


def _named(row: Any, schema: Schema) -> Any:
    return dict(zip(schema.names, row, strict=False)) if isinstance(row, list) else row


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{path.name}: {error}") from error


def golden_difference(golden: Golden, outcome: Outcome) -> str | None:
    """The first difference between what came out and what must, or None if all is within the tolerance."""
    tolerance = golden.tolerance
    for index, (expected, got) in enumerate(zip(golden.predictions, outcome.predictions, strict=True)):
        if isinstance(expected, str) or isinstance(got, str):
            same = expected == got
        else:
            same = bool(np.isclose(got, expected, rtol=tolerance, atol=tolerance))
        if not same:
            return f"golden row {index}: got {got!r} instead of {expected!r}"
    if golden.probabilities is None:
        return None
    if outcome.probabilities is None:
        return "the model gives no probabilities"
    expected_matrix, got_matrix = np.array(golden.probabilities), np.array(outcome.probabilities)
    if expected_matrix.shape != got_matrix.shape:
        return f"probabilities have shape {got_matrix.shape} instead of {expected_matrix.shape}"
    distance = float(np.abs(expected_matrix - got_matrix).max())
    if not distance <= tolerance:
        return f"probabilities differ by up to {distance:.2g}"
    return None
