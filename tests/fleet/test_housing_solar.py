"""The two regression models through the loop, on twins: gaps in housing's rows, time order and nights in solar's."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fleet import housing, solar
from jobs.loop_cases import Loop
from served_models import Served
from slipway.jobs.holdout import split
from slipway.jobs.window import plain_predictions
from slipway.spec import Candidate, ModelSpec


def thin(build: Any) -> Any:
    return build().set_params(max_iter=60)


def light(spec: ModelSpec, rows: pd.DataFrame) -> ModelSpec:
    """The same model on few rows, with its boosted candidate alone and fewer rounds of it."""
    drift = spec.drift.model_copy(update={"null_windows": 100})
    boosted = Candidate(name="boosted", build=partial(thin, spec.candidates[0].build))
    return spec.model_copy(update={"loader": lambda: rows.copy(), "candidates": (boosted,), "drift": drift})


@pytest.fixture(scope="module")
def districts() -> pd.DataFrame:
    return housing.stand_in(5_000)


@pytest.fixture(scope="module")
def hours() -> pd.DataFrame:
    return solar.load()


def test_the_stand_in_has_gaps_and_is_the_same_each_time(districts: pd.DataFrame) -> None:
    assert list(districts) == [*housing.MODEL.feature_names, "MedHouseVal"]
    assert 0.005 < districts["AveBedrms"].isna().mean() < 0.02
    assert districts.drop(columns="AveBedrms").notna().all(axis=None)
    pd.testing.assert_frame_equal(housing.stand_in(5_000), districts)


@pytest.mark.parametrize("error", [OSError("no network"), ValueError("broken archive")])
def test_a_failed_download_falls_back_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail() -> pd.DataFrame:
        raise error

    monkeypatch.setattr(housing, "fetch", fail)
    assert len(housing.load()) == 20_640
    assert "synthetic stand-in" in caplog.text


def test_a_year_of_hours_has_dark_nights_and_seasons(hours: pd.DataFrame) -> None:
    assert len(hours) == 8_760
    assert hours["time"].is_monotonic_increasing
    assert hours["time"].is_unique
    power = hours["ac_power"]
    assert (power[hours["zenith"] > 100] == 0).all()
    assert power.between(0, 5.5).all()
    monthly = power.groupby(hours["time"].dt.month).mean()
    assert monthly[6] > 1.2 * monthly[12]


@pytest.mark.slow
def test_housing_from_the_loader_to_a_watched_champion(districts: pd.DataFrame) -> None:
    loop = Loop(spec=light(housing.MODEL, districts))
    taken = loop.snapshot()
    assert loop.validate(taken)["verdict"] == "passed"
    champion = loop.first_champion()
    scorer = loop.files.read(loop.tracker.artefacts / champion.run_id / "model")
    answers = plain_predictions(loop.spec, scorer.predict(pd.DataFrame(list(housing.MODEL.golden_rows))))
    assert np.isfinite(np.asarray(answers, dtype=float)).all()
    logged = loop.traffic(1000, labels=True, shifts={"MedInc": 2.0})
    assert logged["AveBedrms"].isna().any()
    watched = loop.watch()
    assert watched["verdict"] == "drift"
    decision = loop.decide(watched)
    assembled = loop.assemble(decision)
    assert loop.assemble(decision) == assembled
    assert len(loop.lake.read_snapshot(assembled)) > len(districts)


@pytest.mark.slow
def test_solar_is_held_out_by_time_and_watched(hours: pd.DataFrame) -> None:
    loop = Loop(spec=light(solar.MODEL, hours[::2].reset_index(drop=True)))
    taken = loop.snapshot()
    assert loop.validate(taken)["verdict"] == "passed"
    rows = loop.lake.read_snapshot(taken)
    parts = split(loop.spec, rows)
    assert parts.ordered
    assert rows["time"].iloc[parts.training].max() < rows["time"].iloc[parts.held_out].min()
    loop.first_champion()
    loop.traffic(1000, labels=True, shifts={"temp_air": 25.0})
    watched = loop.watch()
    assert watched["verdict"] == "drift"
    assert loop.assemble(loop.decide(watched)).sha256


@pytest.mark.services
def test_a_bento_answers_the_golden_rows_of_housing_with_their_gap(districts: pd.DataFrame, tmp_path: Path) -> None:
    served = Served(light(housing.MODEL, districts), "boosted", tmp_path)
    try:
        rows = [dict(row) for row in housing.MODEL.golden_rows]
        status, answer = served.predict({"rows": rows})
        assert status == 200, answer
        served.check(rows, answer["predictions"], None)
        assert served.predict({**rows[1], "MedInc": None})[0] == 422
    finally:
        served.stop()
