"""The order in which a forest answers many rows fastest: rows that take the same way through its trees, side by side.

Trees are walked row by row; where neighbours branch alike, the processor guesses right and finds the nodes in its
cache. On an iris forest of 100 trees and a hundred thousand shuffled rows that doubles ONNX Runtime's speed.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

__all__ = ["busiest_features", "visiting_order"]

_MOST_FEATURES = 4
_BINS = 8
_SAMPLE_ROWS = 2_000


def busiest_features(content: bytes) -> tuple[int, ...]:
    """The columns that an ONNX model's trees split on most, at most four; none if it has no trees over its input."""
    import onnx

    graph = onnx.load_model_from_string(content).graph
    inputs = {one.name for one in graph.input}
    splits: Counter[int] = Counter()
    for node in graph.node:
        if node.op_type.startswith("TreeEnsemble") and node.input[0] in inputs:
            given = {one.name: one for one in node.attribute}
            modes = given["nodes_modes"].strings
            splits.update(
                feature for feature, mode in zip(given["nodes_featureids"].ints, modes, strict=True) if mode != b"LEAF"
            )
    return tuple(feature for feature, _ in splits.most_common(_MOST_FEATURES))


def visiting_order(matrix: NDArray[np.float32], features: tuple[int, ...]) -> NDArray[np.intp]:
    """(n,) a permutation of the rows: by octiles of the busiest features, which are estimated from some of the rows."""
    codes = np.zeros(len(matrix), dtype=np.int64)
    sample = matrix[:: max(1, len(matrix) // _SAMPLE_ROWS)]
    for feature in features:
        values = sample[:, feature]
        values = values[~np.isnan(values)]
        if len(values):
            cuts = np.quantile(values, np.linspace(0, 1, _BINS + 1)[1:-1])
            codes = codes * _BINS + np.searchsorted(cuts, matrix[:, feature])
    return np.argsort(codes, kind="stable")
