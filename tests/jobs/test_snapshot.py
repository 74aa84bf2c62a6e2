"""Snapshots of the loader's data, and their validation."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest

from fleet import iris
from jobs.loop_cases import Loop
from slipway.errors import DataError, QuarantineError


def with_loader(frame: Any) -> Loop:
    loop = Loop()
    loop.spec = loop.spec.model_copy(update={"loader": lambda: frame})
    return loop


def test_the_same_rows_give_the_same_snapshot() -> None:
    loop = Loop()
    first = loop.snapshot()
    assert first == loop.snapshot()
    assert first.rows == 150
    assert len(loop.lake.frames) == 1


def test_the_form_of_the_numbers_and_the_index_do_not_matter() -> None:
    frame = pd.DataFrame({name: [1, 2, 3] for name in iris.MODEL.feature_names}).assign(species="setosa")
    other = frame.astype(dict.fromkeys(iris.MODEL.feature_names, "float64")).set_index(pd.Index([7, 8, 9]))
    assert with_loader(frame).snapshot().sha256 == with_loader(other).snapshot().sha256


def test_columns_that_the_spec_does_not_name_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    loop = with_loader(iris.load().assign(garden="Kew"))
    assert loop.snapshot().sha256 == Loop().snapshot().sha256
    assert "garden" in caplog.text


def test_a_failing_loader_is_named() -> None:
    def broken() -> Any:
        raise KeyError("no such file")

    loop = Loop()
    loop.spec = loop.spec.model_copy(update={"loader": broken})
    with pytest.raises(DataError, match="iris: its loader failed: KeyError"):
        loop.snapshot()
    with pytest.raises(DataError, match="returned list"):
        with_loader([1, 2]).snapshot()


def test_a_good_snapshot_passes_with_a_report() -> None:
    loop = Loop()
    outcome = loop.validate(loop.snapshot())
    assert outcome["verdict"] == "passed"
    assert outcome["expectations"] >= 14
    json.dumps(outcome, allow_nan=False)
    reports = {path.rsplit("/", 1)[1]: content for path, content in loop.lake.reports.items()}
    assert set(reports) == {"data_checks.html", "data_checks.json"}
    assert json.loads(reports["data_checks.json"])["passed"]


def test_a_bad_snapshot_is_quarantined_with_its_reasons_once() -> None:
    loop = with_loader(iris.load().assign(petal_width=-1.0))
    taken = loop.snapshot()
    for _ in range(2):
        with pytest.raises(QuarantineError, match=r"petal_width: expect_column_values_to_be_between .* see memory://"):
            loop.validate(taken)
        loop.now += timedelta(minutes=1)
    assert [(one.kind, one.verdict) for one in loop.decisions.rows] == [("data", "quarantined")]


def test_a_snapshot_that_passes_after_the_spec_was_corrected_may_be_trained_on() -> None:
    loop = with_loader(iris.load().assign(petal_width=lambda frame: frame.petal_width - 1))
    taken = loop.snapshot()
    with pytest.raises(QuarantineError):
        loop.validate(taken)
    loop.now += timedelta(minutes=1)
    wider = tuple(feature.model_copy(update={"minimum": -5}) for feature in loop.spec.features)
    loop.spec = loop.spec.model_copy(update={"features": wider})
    assert loop.validate(taken)["verdict"] == "passed"
    assert "run_id" in loop.train(taken)
