"""Bad frames and what must become of each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from fleet import iris
from slipway.adapters.gx import GxValidator
from slipway.jobs.data_checks import check_frame, report_page
from slipway.ports import Validation
from slipway.spec import DataPolicy, Feature, ModelSpec

SPEC = iris.MODEL
GOOD = iris.load()


def check(frame: pd.DataFrame, spec: ModelSpec = SPEC, *, target: bool = True, min_rows: int = 50) -> Validation:
    return check_frame(spec, frame, GxValidator(), min_rows=min_rows, target=target)


def test_the_training_data_passes() -> None:
    outcome = check(GOOD)
    assert outcome.passed
    assert outcome.rows == 150
    names = {one.name for one in outcome.expectations}
    assert {"expect_table_row_count_to_be_between", "expect_column_values_to_not_be_null"} <= names


BAD: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "empty": (lambda frame: frame.iloc[:0], "row_count"),
    "one row": (lambda frame: frame.iloc[:1], "row_count"),
    "missing column": (lambda frame: frame.drop(columns="petal_width"), "petal_width: column_exists"),
    "missing target": (lambda frame: frame.drop(columns="species"), "species: column_exists"),
    "all null": (lambda frame: frame.assign(petal_width=np.nan), "petal_width: expect_column_values_to_not_be_null"),
    "one null": (lambda frame: frame.assign(petal_width=frame.petal_width.where(frame.index > 0)), "not_be_null"),
    "infinity": (lambda frame: frame.assign(petal_width=frame.petal_width.where(frame.index > 0, np.inf)), "finite"),
    "strings": (lambda frame: frame.assign(petal_width="1.5"), "petal_width: values_are_numbers"),
    "booleans": (lambda frame: frame.assign(petal_width=True), "petal_width: values_are_numbers"),
    "below the range": (lambda frame: frame.assign(petal_width=-0.1), "be_between"),
    "above the range": (lambda frame: frame.assign(petal_width=99.0), "be_between"),
    "unknown class": (lambda frame: frame.assign(species="rose"), "species: expect_column_values_to_be_in_set"),
    "null class": (lambda frame: frame.assign(species=None), "species: expect_column_values_to_not_be_null"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_frame_fails_for_its_own_reason(name: str) -> None:
    spoil, why = BAD[name]
    outcome = check(spoil(GOOD.copy()))
    assert not outcome.passed
    assert any(why in failure for failure in outcome.failures), outcome.failures


WARNED: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "constant": (lambda frame: frame.assign(petal_width=0.2), "petal_width: expect_column_unique_value_count"),
    "extra column": (lambda frame: frame.assign(colour="red", code=1), "no_other_columns (colour, code)"),
    "duplicated rows": (lambda frame: pd.concat([frame, frame.iloc[:60]]), "expect_compound_columns_to_be_unique"),
    "time going backwards": (
        lambda frame: frame.assign(at=pd.date_range("2026-11-20", periods=len(frame), tz="UTC")[::-1]),
        "at: expect_column_values_to_be_increasing",
    ),
}


@pytest.mark.parametrize("name", WARNED)
def test_an_odd_frame_passes_with_a_warning_that_names_it(name: str) -> None:
    spoil, why = WARNED[name]
    spec = SPEC.model_copy(update={"time": "at"}) if "time" in name else SPEC
    outcome = check(spoil(GOOD.copy()), spec)
    assert outcome.passed
    assert any(why in warning for warning in outcome.warnings), outcome.warnings
    page = report_page(spec, outcome, "an odd frame")
    assert "Warnings: these are reported" in page
    assert "passed" in page


def test_a_new_category_and_nulls_that_appear_stop_the_data() -> None:
    colour = Feature(name="colour", kind="category", categories=("red", "blue"))
    spec = SPEC.model_copy(update={"features": (*SPEC.features, colour)})
    assert not check(GOOD.assign(colour="green"), spec).passed
    gaps = GOOD.petal_width.where(GOOD.index % 5 > 0)
    assert any("petal_width" in one for one in check(GOOD.assign(petal_width=gaps)).failures)


def test_a_window_far_from_its_reference_is_told_and_not_stopped() -> None:
    window = GOOD.drop(columns="species").assign(petal_length=GOOD.petal_length + 1.5)
    repeated = pd.concat([window.iloc[:1]] * 50, ignore_index=True)
    for frame, far in ((window, {"petal_length"}), (repeated, set(SPEC.feature_names))):
        outcome = check_frame(SPEC, frame, GxValidator(), min_rows=1, target=False, reference=GOOD)
        assert outcome.passed
        assert outcome.warnings == ()
        assert {one.column for one in outcome.expectations if one.severity == "info" and not one.met} <= far
        assert outcome.unmet("info")


def test_a_window_of_traffic_needs_no_target() -> None:
    assert check(GOOD.drop(columns="species"), target=False).passed


def test_other_kinds_of_columns_are_checked_too() -> None:
    spec = SPEC.model_copy(
        update={
            "features": (
                Feature(name="rooms", kind="integer"),
                Feature(name="colour", kind="category", categories=("red", "blue")),
                Feature(name="note", kind="text", max_length=5),
                Feature(name="age", nullable=True),
            ),
            "data": DataPolicy(min_rows=1, max_null_fraction=0.5),
        }
    )
    good = pd.DataFrame({"rooms": [1, 2], "colour": ["red", "blue"], "note": ["a", "b"], "age": [1.0, None]})
    assert check(good, spec, target=False, min_rows=1).passed
    for column, value, why in [
        ("rooms", 1.5, "rooms: values_are_whole"),
        ("colour", "green", "colour: expect_column_values_to_be_in_set"),
        ("note", "too long", "note: expect_column_value_lengths"),
        ("age", None, "age: expect_column_values_to_not_be_null"),
    ]:
        outcome = check(good.assign(**{column: value}), spec, target=False, min_rows=1)
        assert any(why in failure for failure in outcome.failures), (column, outcome.failures)


def test_having_expected_nothing_is_not_a_pass() -> None:
    assert not Validation(10, ()).passed


def test_the_page_is_self_contained_and_escapes_what_the_data_says() -> None:
    page = report_page(SPEC, check(GOOD.assign(species="<script>")), "iris <b>")
    assert "http" not in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "quarantined" in page
