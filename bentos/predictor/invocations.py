"""MLflow's scoring protocol: four spellings of the same rows.

See https://mlflow.org/docs/latest/deployment/deploy-model-locally (accepted formats). Rows may be
objects by name or, in `instances` and `inputs`, arrays in the order of the schema; where the schema has one feature,
a list of plain values is one row for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from predictor.checks import parse, type_name
from predictor.problems import Problem
from predictor.schema import RequestDecoder, Row

__all__ = ["decode_invocations"]


def decode_invocations(body: bytes, decoder: RequestDecoder) -> list[Row]:
    """The rows of a body in MLflow's protocol.

    Raises:
        Problem: 400 if it is not JSON, 422 if it does not fit the protocol or the schema.
    """
    document = parse(body)
    if not isinstance(document, dict):
        raise _invalid("$", f"must be an object, not {type_name(document)}")
    present = [key for key in _READERS if key in document]
    if len(present) != 1:
        raise _invalid("$", f"must have exactly one of {', '.join(_READERS)}")
    for key in document:
        if key not in (*present, "params"):
            raise _invalid(str(key)[:64], "unknown field")
    if document.get("params"):
        raise _invalid("params", "this model takes no parameters")
    key = present[0]
    records = _READERS[key](document[key], key, decoder.schema.names)
    if len(records) > decoder.max_rows:
        raise _invalid(key, f"holds {len(records)} rows; at most {decoder.max_rows} are accepted in one request")
    return decoder.convert(records, key)


def _records(value: Any, key: str, names: Sequence[str]) -> list[Any]:
    if not isinstance(value, list):
        raise _invalid(key, f"must be a list of objects, not {type_name(value)}")
    return value


def _split(value: Any, key: str, names: Sequence[str]) -> list[Any]:
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise _invalid(key, "must be an object with columns and data")
    columns = value.get("columns", list(names))
    if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
        raise _invalid(f"{key}.columns", "must be a list of names")
    if len(set(columns)) != len(columns):
        raise _invalid(f"{key}.columns", "names a column twice")
    return [_zip(row, f"{key}.data[{index}]", columns) for index, row in enumerate(value["data"])]


def _instances(value: Any, key: str, names: Sequence[str]) -> list[Any]:
    if not isinstance(value, list):
        raise _invalid(key, f"must be a list of rows, not {type_name(value)}")
    return [_row(row, f"{key}[{index}]", names) for index, row in enumerate(value)]


def _row(row: Any, path: str, names: Sequence[str]) -> Any:
    if isinstance(row, list):
        return _zip(row, path, names)
    return {names[0]: row} if len(names) == 1 and not isinstance(row, dict) else row


def _inputs(value: Any, key: str, names: Sequence[str]) -> list[Any]:
    if not isinstance(value, dict):
        return _instances(value, key, names)
    columns = {name: column if isinstance(column, list) else [column] for name, column in value.items()}
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise _invalid(key, "columns have different lengths")
    count = lengths.pop() if lengths else 0
    return [{name: _scalar(column[index]) for name, column in columns.items()} for index in range(count)]


def _scalar(value: Any) -> Any:
    """A column of shape (n, 1) is how tensors of one feature are written."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _zip(row: Any, path: str, names: Sequence[str]) -> dict[str, Any]:
    if not isinstance(row, list):
        raise _invalid(path, f"must be an array, not {type_name(row)}")
    if len(row) != len(names):
        raise _invalid(path, f"has {len(row)} values for {len(names)} columns")
    return dict(zip(names, row, strict=True))


def _invalid(path: str, message: str) -> Problem:
    return Problem(422, "invalid", f"{path}: {message}", [{"path": path, "message": message}])


_READERS: dict[str, Callable[[Any, str, Sequence[str]], list[Any]]] = {
    "dataframe_records": _records,
    "dataframe_split": _split,
    "instances": _instances,
    "inputs": _inputs,
}
