from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from slipway.core.encoding import class_names, encode_target, feature_matrix, is_missing
from slipway.errors import DataError


def test_numbers_become_a_float_matrix_in_the_asked_order() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, None], "c": pd.array([3, None], dtype="Int64")})
    matrix = feature_matrix([("b", "number"), ("c", "integer"), ("a", "integer")], frame)
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, [[0.5, 3, 1], [np.nan, np.nan, 2]])


def test_a_category_makes_the_matrix_one_of_objects_and_missing_is_none() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": pd.array(["x", None], dtype="string")})
    matrix = feature_matrix([("a", "number"), ("b", "category")], frame)
    assert matrix.tolist() == [[1.0, "x"], [2.0, None]]


@pytest.mark.parametrize(
    ("frame", "said"),
    [(pd.DataFrame({"b": [1]}), "missing column a"), (pd.DataFrame({"a": ["one"]}), "column a holds a value")],
)
def test_a_bad_frame_names_its_column(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(DataError, match=said):
        feature_matrix([("a", "number")], frame)


def test_classes_are_their_index_and_back() -> None:
    codes = encode_target(("low", "high"), ["high", "low"])
    assert codes.tolist() == [1, 0]
    assert class_names(("low", "high"), codes).tolist() == ["high", "low"]
    assert encode_target(None, ["1.5"]).tolist() == [1.5]


def test_a_foreign_class_is_named() -> None:
    with pytest.raises(DataError, match="'mid', which is none of low, high"):
        encode_target(("low", "high"), ["low", "mid"])


@pytest.mark.parametrize(
    ("value", "missing"), [(None, True), (float("nan"), True), (pd.NA, True), (pd.NaT, True), ("", False), (0, False)]
)
def test_what_counts_as_missing(value: object, missing: bool) -> None:
    assert is_missing(value) is missing
