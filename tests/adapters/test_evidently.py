"""The page that people read agrees with the verdict that machines act on."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from slipway.adapters.evidently import EvidentlyReporter
from slipway.core.drift import Column, DriftResult, judge_window
from slipway.spec import DriftPolicy


@pytest.fixture(scope="module")
def judged() -> tuple[DriftResult, str, dict[str, object]]:
    random = np.random.default_rng(0)

    def draw(rows: int, shift: float) -> pd.DataFrame:
        numbers = {"length": random.normal(shift, 1, rows), "width": random.normal(0, 1, rows).round(1)}
        return pd.DataFrame({**numbers, "prediction": random.choice(["a", "b"], rows)})

    reference, window = draw(600, 0.0), draw(400, 1.5)
    kinds = {"length": "number", "width": "number", "prediction": "category"}
    columns = [Column(name, kind, reference[name].to_numpy(), window[name].to_numpy()) for name, kind in kinds.items()]  # type: ignore[arg-type]
    result = judge_window(columns, DriftPolicy(null_windows=100))
    page, plain = EvidentlyReporter().report(reference, window, result)
    return result, page, json.loads(plain)


def test_scores_and_thresholds_are_those_of_the_verdict(judged: tuple[DriftResult, str, dict[str, object]]) -> None:
    result, _, plain = judged
    metrics = plain["evidently"]["metrics"]  # type: ignore[index]
    by_column = {
        re.search(r"column=(\w+)", metric["metric_name"])[1]: metric  # type: ignore[index]
        for metric in metrics
        if metric["metric_name"].startswith("ValueDrift")
    }
    assert set(by_column) == {"length", "width", "prediction"}
    for column in result.columns:
        assert by_column[column.name]["value"] == pytest.approx(column.statistic, abs=1e-9)
        assert f"threshold={column.threshold}" in by_column[column.name]["metric_name"]


def test_it_counts_as_many_drifted_columns(judged: tuple[DriftResult, str, dict[str, object]]) -> None:
    result, _, plain = judged
    counted = plain["evidently"]["metrics"][0]["value"]  # type: ignore[index]
    assert counted["count"] == sum(column.drifted for column in result.columns) == 1
    assert plain["slipway"] == json.loads(json.dumps(result.as_dict()))


def test_the_page_loads_nothing_from_the_network(judged: tuple[DriftResult, str, dict[str, object]]) -> None:
    _, page, _ = judged
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"https?://", page)
    assert "length" in page
