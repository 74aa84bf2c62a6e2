"""How rows become the arrays that estimators see, the same at training, gating, watching and serving.

Estimators are fitted on plain arrays with the columns in the spec's order: a float64 matrix when all features are
numeric, an object matrix otherwise. Classes are their index in `target.classes`, so that probabilities have the
spec's order everywhere. Frames are whatever gives `frame[name].to_numpy(dtype=object)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipway.errors import DataError

__all__ = ["NUMERIC_KINDS", "class_names", "encode_target", "feature_matrix", "is_missing"]

NUMERIC_KINDS = ("number", "integer")


def is_missing(value: Any) -> bool:
    """None, NaN and pandas' own markers: the only values that differ from themselves or refuse to be compared."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA
        return True


def feature_matrix(features: Sequence[tuple[str, str]], frame: Any) -> NDArray[Any]:
    """(n, features) matrix of the named columns; missing numbers are NaN, other missing values None.

    Args:
        features: (name, kind) in the order of the matrix.

    Raises:
        DataError: a column is missing, or holds what is no number.
    """
    absent = [name for name, _ in features if name not in frame.columns]
    if absent:
        raise DataError(f"missing column {', '.join(absent)}")
    numeric = all(kind in NUMERIC_KINDS for _, kind in features)
    columns = [_numbers(name, frame) if kind in NUMERIC_KINDS else _objects(name, frame) for name, kind in features]
    return np.column_stack(columns) if numeric else np.column_stack([column.astype(object) for column in columns])


def _numbers(name: str, frame: Any) -> NDArray[np.float64]:
    try:
        return np.asarray(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise DataError(f"column {name} holds a value that is no number") from error


def _objects(name: str, frame: Any) -> NDArray[Any]:
    values = frame[name].to_numpy(dtype=object)
    return np.array([None if is_missing(value) else value for value in values], dtype=object)


def encode_target(classes: Sequence[str] | None, values: Any) -> NDArray[Any]:
    """(n,) class indices, or float64 numbers for regression.

    Raises:
        DataError: a value that is none of the classes, or no number.
    """
    if classes is None:
        try:
            return np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise DataError("the target holds a value that is no number") from error
    index = {name: position for position, name in enumerate(classes)}
    found = [index.get(str(value), -1) for value in values]
    if -1 in found:
        raise DataError(f"the target holds {values[found.index(-1)]!r}, which is none of {', '.join(classes)}")
    return np.array(found, dtype=np.int64)


def class_names(classes: Sequence[str], indices: NDArray[Any]) -> NDArray[Any]:
    """The inverse of `encode_target` for classes."""
    return np.array(classes, dtype=object)[indices.astype(np.intp)]
