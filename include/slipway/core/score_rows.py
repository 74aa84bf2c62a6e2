"""Which rows of a batch can be predicted, judged by columns: the checks of the serving schema without a loop by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipway.spec import Feature

__all__ = ["problems", "wrong_columns"]

_ACCEPTED = {
    "number": ("int", "uint", "float", "double", "halffloat", "decimal", "null"),
    "integer": ("int", "uint", "null"),
    "category": ("string", "large_string", "dictionary", "null"),
    "text": ("string", "large_string", "dictionary", "null"),
}


def wrong_columns(features: Sequence[Feature], types: Mapping[str, str]) -> list[str]:
    """What keeps a whole input from being scored: columns that are missing or of a wrong type.

    Args:
        types: Arrow type by column name.
    """
    found = []
    for feature in features:
        kind = types.get(feature.name)
        if kind is None:
            found.append(f"{feature.name} is missing")
        elif not kind.startswith(_ACCEPTED[feature.kind]):
            found.append(f"{feature.name} is {kind}, not a {feature.kind}")
    return found


def problems(
    features: Sequence[Feature], columns: Mapping[str, NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(n,) the first problem of each row as text, None where there is none; and (n,) whether there is none.

    Args:
        columns: (n,) values by feature; missing ones are NaN or None.
    """
    first = features[0].name
    rows = len(columns[first])
    said: NDArray[Any] = np.full(rows, None, dtype=object)
    free = np.ones(rows, dtype=bool)
    for feature in features:
        for text, bad in _of(feature, columns[feature.name]):
            said[bad & free] = text
            free &= ~bad
    return said, free


def _of(feature: Feature, values: NDArray[Any]) -> list[tuple[str, NDArray[np.bool_]]]:
    name = feature.name
    if feature.kind in ("number", "integer"):
        numbers = np.asarray(values, dtype=np.float64)
        missing = np.isnan(numbers)
        found = [] if feature.nullable else [(f"{name}: missing", missing)]
        found.append((f"{name}: not finite", np.isinf(numbers)))
        if feature.minimum is not None:
            found.append((f"{name}: below {feature.minimum:g}", numbers < feature.minimum))
        if feature.maximum is not None:
            found.append((f"{name}: above {feature.maximum:g}", numbers > feature.maximum))
        return found
    missing = np.array([value is None or value != value for value in values], dtype=bool)
    found = [] if feature.nullable else [(f"{name}: missing", missing)]
    if feature.categories is not None:
        known = frozenset(feature.categories)
        unknown = np.array([value not in known for value in values], dtype=bool)
        return [*found, (f"{name}: no known category", unknown & ~missing)]
    long = np.array([isinstance(value, str) and len(value) > feature.max_length for value in values], dtype=bool)
    return [*found, (f"{name}: longer than {feature.max_length} characters", long)]
