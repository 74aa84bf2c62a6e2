from __future__ import annotations

import pytest

from slipway.errors import DataError, GatewayError
from slipway.jobs.simulate import Simulation, _draw, _payloads, parse_shifts, simulate
from slipway.settings import PROJECT_DIR
from slipway.spec import load_model

IRIS = load_model(PROJECT_DIR / "include" / "fleet", "iris")


def test_rows_are_like_the_loaders_and_inside_of_the_bounds() -> None:
    source, frame = IRIS.loader(), _draw(IRIS, 5000, {}, seed=1)
    for feature in IRIS.features:
        assert abs(frame[feature.name].mean() - source[feature.name].mean()) < 0.1
        assert frame[feature.name].between(feature.minimum, feature.maximum).all()
    assert set(frame["species"]) == set(source["species"])


def test_a_shift_moves_one_feature_and_leaves_the_labels() -> None:
    plain, shifted = _draw(IRIS, 100, {}, seed=1), _draw(IRIS, 100, {"petal_length": 1.5}, seed=1)
    assert ((shifted["petal_length"] - plain["petal_length"]).round(6) == 1.5).all()
    assert (shifted["petal_width"] == plain["petal_width"]).all()
    assert (shifted["species"] == plain["species"]).all()


def test_the_same_seed_sends_the_same_rows() -> None:
    assert _payloads(IRIS, _draw(IRIS, 10, {}, seed=3)) == _payloads(IRIS, _draw(IRIS, 10, {}, seed=3))


def test_payloads_are_plain_json_values() -> None:
    for row in _payloads(IRIS, _draw(IRIS, 5, {}, seed=1)):
        assert set(row) == set(IRIS.feature_names)
        assert all(type(value) is float for value in row.values())


def test_an_unknown_feature_cannot_be_shifted() -> None:
    with pytest.raises(DataError, match="petal_colour"):
        parse_shifts(IRIS, {"petal_colour": 1.0})


def test_nothing_at_the_address_is_one_clear_error() -> None:
    with pytest.raises(GatewayError, match="slipway up"):
        simulate(IRIS, "http://127.0.0.1:9", rows=1, rate=1)


def test_percentiles_of_what_was_measured() -> None:
    outcome = Simulation(latencies_ms=[float(value) for value in range(100)])
    assert outcome.percentile_ms(0.5) == 50
    assert outcome.percentile_ms(0.99) == 99
    assert outcome.failed == 0
