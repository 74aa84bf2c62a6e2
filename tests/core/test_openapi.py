from __future__ import annotations

from slipway.core.openapi import document
from slipway.settings import PROJECT_DIR
from slipway.spec import Feature, load_model

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


def test_keys_and_rates_are_told_where_they_hold() -> None:
    paths = document([IRIS], 10_000, "1", need_key=True, limited=True)["paths"]
    for path in ("/predict/iris", "/invocations/iris", "/feedback/iris"):
        operation = paths[path]["post"]
        assert operation["security"] == [{"api_key": []}]
        assert {"401", "403", "429"} <= set(operation["responses"])
        assert "retry-after" in operation["responses"]["429"]["headers"]
    assert "429" in paths["/config"]["get"]["responses"]
    assert "429" not in paths["/health"]["get"]["responses"]
    assert "401" not in document([IRIS], 10_000, "1")["paths"]["/predict/iris"]["post"]["responses"]


def test_scoring_bodies_are_described_one_spelling_at_a_time() -> None:
    operation = document([IRIS], 50, "1")["paths"]["/invocations/iris"]["post"]
    forms = operation["requestBody"]["content"]["application/json"]["schema"]["oneOf"]
    assert [form["required"] for form in forms] == [
        ["dataframe_records"],
        ["dataframe_split"],
        ["instances"],
        ["inputs"],
    ]
    records = forms[0]["properties"]["dataframe_records"]
    assert (records["minItems"], records["maxItems"]) == (1, 50)


def test_numbers_are_bounded_by_what_a_bento_can_compute_with() -> None:
    spec = IRIS.model_copy(update={"features": (Feature(name="free"), Feature(name="whole", kind="integer"))})
    rows = document([spec], 50, "1")["components"]["schemas"]["iris_row"]["properties"]
    assert rows["free"]["maximum"] == -rows["free"]["minimum"] == 3.4028234663852886e38
    assert rows["whole"]["maximum"] == 2**63 - 1
