"""The flowers that are asked for, and how each server wants them written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import cycle, islice

__all__ = ["NAMES", "bodies", "flowers"]

NAMES = ("sepal_length", "sepal_width", "petal_length", "petal_width")
Flower = tuple[float, ...]


def flowers(count: int) -> list[Flower]:
    """Rows of the iris data, every seventh first, so that few rows already show all species."""
    from sklearn.datasets import load_iris

    data = load_iris().data
    order = sorted(range(len(data)), key=lambda index: (index % 7, index))
    return [tuple(float(value) for value in data[index]) for index in islice(cycle(order), count)]


def _named(row: Flower) -> dict[str, float]:
    return dict(zip(NAMES, row, strict=True))


def _v2(rows: Sequence[Flower]) -> str:
    flat = [value for row in rows for value in row]
    tensor = {"name": "input", "shape": [len(rows), len(NAMES)], "datatype": "FP64", "data": flat}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":"))


_ONE: dict[str, Callable[[Flower], str]] = {
    "flat": lambda row: json.dumps(_named(row)),
    "mlflow": lambda row: json.dumps({"dataframe_records": [_named(row)]}),
    "v2": lambda row: _v2([row]),
}
_MANY: dict[str, Callable[[Sequence[Flower]], str]] = {
    "flat": lambda rows: json.dumps({"rows": [_named(row) for row in rows]}),
    "mlflow": lambda rows: json.dumps({"dataframe_records": [_named(row) for row in rows]}),
    "v2": _v2,
}


def bodies(protocol: str, batch: int, different: int) -> list[str]:
    """Request bodies of `batch` rows each, `different` of them, in a protocol: flat, mlflow or v2."""
    if batch == 1:
        return [_ONE[protocol](row) for row in flowers(different)]
    rows = flowers(batch + different)
    return [_MANY[protocol](rows[start : start + batch]) for start in range(different)]
