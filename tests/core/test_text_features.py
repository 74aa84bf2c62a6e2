"""What a text is measured by."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.core.text_features import TEXT_MEASURES, measure_texts, text_columns


def one(text: object) -> dict[str, float]:
    found = measure_texts("t", [text])
    return {measure: float(found[f"t {measure}"][0]) for measure in TEXT_MEASURES}


def test_the_measures_of_a_line_of_code() -> None:
    found = one("Int x = 12;\n\u00e9")
    assert found["length"] == 13
    assert found["line length"] == 6.5
    shares = {"letters": 5, "capitals": 1, "digits": 2, "whitespace": 4, "punctuation": 2, "beyond ascii": 1}
    assert {name: round(found[name] * 13) for name in shares} == shares


def test_an_empty_text_and_a_missing_one() -> None:
    assert set(one("").values()) == {0.0}
    assert all(np.isnan(value) for value in one(None).values())
    assert all(np.isnan(value) for value in one(float("nan")).values())
    assert all(len(column) == 0 for column in measure_texts("t", []).values())


@given(st.text())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_every_text_has_finite_measures_and_shares_between_0_and_1(text: str) -> None:
    found = one(text)
    assert found["length"] == len(text)
    assert all(np.isfinite(value) for value in found.values())
    assert all(0 <= found[name] <= 1 for name in TEXT_MEASURES[2:])
    kinds = ("letters", "digits", "whitespace", "punctuation")
    assert sum(found[name] for name in kinds) in (0.0, np.float64(1.0)) or abs(sum(found[n] for n in kinds) - 1) < 1e-9


def test_no_feature_can_have_the_name_of_a_measure() -> None:
    assert all(" " in name for name in text_columns("note"))
