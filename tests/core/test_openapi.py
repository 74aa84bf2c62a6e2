from __future__ import annotations

from slipway.core.openapi import document
from slipway.settings import PROJECT_DIR
from slipway.spec import load_model

IRIS = load_model(PROJECT_DIR / "include" / "fleet", "iris")


def test_every_route_of_the_contract_is_described() -> None:
    paths = document([IRIS], 10_000, "1")["paths"]
    assert set(paths) == {
        "/health",
        "/models/info",
        "/config",
        "/predict/iris",
        "/invocations/iris",
        "/feedback/iris",
        "/health/iris",
        "/metrics/iris",
        "/config/iris",
        "/retrain/iris",
    }


def test_a_model_has_its_real_fields_with_bounds_and_units() -> None:
    row = document([IRIS], 10_000, "1")["components"]["schemas"]["iris_row"]
    assert row["required"] == list(IRIS.feature_names)
    assert row["additionalProperties"] is False
    assert row["properties"]["petal_length"] == {
        "type": "number",
        "minimum": 0,
        "maximum": 30,
        "description": "length of the petal [cm]",
    }


def test_control_routes_need_the_key() -> None:
    paths = document([IRIS], 10_000, "1")["paths"]
    assert paths["/retrain/iris"]["post"]["security"] == [{"control_key": []}]
    assert "security" not in paths["/predict/iris"]["post"]
