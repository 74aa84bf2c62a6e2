"""What a bento answers, and what it refuses."""

from __future__ import annotations

import json
import math
import uuid
from pathlib import Path
from typing import Any

import pytest

from bento_cases import ROW, ROW_2, Client, Serve, softmax, write_house, write_iris


def test_single_row_is_answered_with_identity_and_named_probabilities(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        response = await client.post("/predict/iris", ROW)
        answer = response.json()
        assert response.status == 200
        assert list(answer) == ["request_id", "model", "model_version", "slot", "prediction", "probabilities"]
        assert (answer["model"], answer["model_version"], answer["slot"]) == ("iris", "3", "blue")
        assert answer["prediction"] == "setosa"
        assert list(answer["probabilities"]) == ["setosa", "versicolor", "virginica"]
        assert list(answer["probabilities"].values()) == pytest.approx(softmax([ROW])[0].tolist(), abs=1e-6)
        assert response.headers["x-request-id"] == answer["request_id"]
        assert uuid.UUID(answer["request_id"]).version == 7
        assert (response.headers["x-model-version"], response.headers["x-slot"]) == ("3", "blue")

    serve(scenario)


def test_batch_keeps_its_order_also_beyond_one_chunk(serve: Serve) -> None:
    rows = [ROW, ROW_2, ROW_2] * 1000

    async def scenario(client: Client) -> None:
        answer = (await client.post("/predict", {"rows": rows})).json()
        assert answer["predictions"] == ["setosa", "virginica", "virginica"] * 1000
        assert len(answer["probabilities"]) == 3000
        assert "prediction" not in answer

    serve(scenario)


@pytest.mark.parametrize("sent", ["0198C6B4-31B6-7BE2-9F0A-6A1B2C3D4E5F", "6b1e2c1e-8a3f-4a53-9d59-0f5a3a1f1c11"])
def test_the_clients_uuid_is_kept(serve: Serve, sent: str) -> None:
    async def scenario(client: Client) -> None:
        response = await client.post("/predict", ROW, x_request_id=sent)
        assert response.headers["x-request-id"] == response.json()["request_id"] == sent.lower()

    serve(scenario)


@pytest.mark.parametrize(
    "sent", ["", "abc", "0198c6b4_31b6-7be2-9f0a-6a1b2c3d4e5f", "0198c6b4-31b6-7be2-9f0a-6a1b2c3d 4e5"]
)
def test_anything_else_is_replaced_by_a_new_uuid(serve: Serve, sent: str) -> None:
    async def scenario(client: Client) -> None:
        response = await client.post("/predict", b"{", x_request_id=sent)
        assert uuid.UUID(response.headers["x-request-id"]).version == 7

    serve(scenario)


@pytest.mark.parametrize(
    "document",
    [
        {"dataframe_records": [ROW, ROW_2]},
        {"dataframe_split": {"columns": list(ROW)[::-1], "data": [list(row.values())[::-1] for row in (ROW, ROW_2)]}},
        {"instances": [list(ROW.values()), list(ROW_2.values())]},
        {"instances": [ROW, ROW_2]},
        {"inputs": {name: [ROW[name], ROW_2[name]] for name in ROW}},
        {"inputs": {name: [[ROW[name]], [ROW_2[name]]] for name in ROW}},
        {"inputs": [list(ROW.values()), list(ROW_2.values())], "params": {}},
    ],
)
def test_mlflow_spellings_give_the_same_predictions(serve: Serve, document: dict[str, Any]) -> None:
    async def scenario(client: Client) -> None:
        response = await client.post("/invocations/iris", document)
        assert response.status == 200
        assert response.json() == {"predictions": ["setosa", "virginica"]}
        assert response.headers["x-model-version"] == "3"

    serve(scenario)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ([], "$"),
        ({}, "$"),
        ({"instances": [[1, 2, 3]]}, "instances[0]"),
        ({"instances": [[1, 2, 3, 4]], "inputs": []}, "$"),
        ({"dataframe_records": []}, "dataframe_records"),
        ({"dataframe_records": [ROW, {**ROW, "petal_width": "x"}]}, "dataframe_records[1].petal_width"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": []}}, "dataframe_split.columns"),
        ({"inputs": {"sepal_length": [1.0, 2.0], "sepal_width": [1.0]}}, "inputs"),
        ({"dataframe_records": [ROW], "params": {"temperature": 1}}, "params"),
        ({"instances": [list(ROW.values())] * 11}, "instances"),
    ],
)
def test_mlflow_errors_name_the_place(serve: Serve, document: Any, path: str) -> None:
    async def scenario(client: Client) -> None:
        response = await client.post("/invocations", json.dumps(document).encode())
        assert (response.status, response.json()["errors"][0]["path"]) == (422, path)

    serve(scenario, max_batch_rows=10)


def _body(**changes: Any) -> bytes:
    return json.dumps({**ROW, **changes}).encode()


MISSING = json.dumps({name: value for name, value in ROW.items() if name != "petal_width"}).encode()


@pytest.mark.parametrize(
    ("body", "status", "path", "message"),
    [
        (b"", 400, None, "not JSON"),
        (b"{", 400, None, "not JSON"),
        (b'{"a":1}x', 400, None, "not JSON"),
        (b"\xff\xfe", 400, None, "UTF-8"),
        (b'{"sepal_length":' + b"[" * 100_000, 400, None, "nested"),
        (b"[]", 422, "$", "must be an object, not an array"),
        (b"null", 422, "$", "must be an object, not null"),
        (MISSING, 422, "petal_width", "missing"),
        (_body(extra=1), 422, "extra", "unknown field"),
        (_body(petal_width="0.2"), 422, "petal_width", "must be a number, not a string"),
        (_body(petal_width=True), 422, "petal_width", "must be a number, not a boolean"),
        (_body(petal_width=None), 422, "petal_width", "must not be null"),
        (_body(petal_width=[1]), 422, "petal_width", "must be a number, not an array"),
        (_body(petal_width=math.nan), 422, "petal_width", "must be finite"),
        (_body(petal_width=-math.inf), 422, "petal_width", "must be finite"),
        (_body().replace(b"0.2", b"1e400"), 422, "petal_width", "must be finite"),
        (_body(petal_width=-0.1), 422, "petal_width", "must be at least 0 cm"),
        (_body(petal_width=30.1), 422, "petal_width", "must be at most 30 cm"),
        (b'{"rows": []}', 422, "rows", "at least one row"),
        (b'{"rows": {}}', 422, "rows", "must be a list"),
        (b'{"rows": [1]}', 422, "rows[0]", "must be an object, not a number"),
        (b'{"rows": [' + _body() + b'], "x": 1}', 422, "x", "unknown field"),
        (b'{"rows": [' + b",".join([_body()] * 11) + b"]}", 422, "rows", "holds 11 rows; at most 10"),
        (b'{"rows": [' + _body() + b"," + _body(petal_width=99) + b"]}", 422, "rows[1].petal_width", "at most 30 cm"),
    ],
)
def test_bad_input_is_refused_with_its_place_and_never_logged(
    serve: Serve, tmp_path: Path, body: bytes, status: int, path: str | None, message: str
) -> None:
    async def scenario(client: Client) -> None:
        response = await client.post("/predict/iris", body)
        problem = response.json()
        assert response.status == problem["status"] == status
        assert response.headers["content-type"] == "application/problem+json"
        assert problem["request_id"] == response.headers["x-request-id"]
        assert message in problem["detail"]
        if path is not None:
            assert problem["errors"][0]["path"] == path
        assert (await client.post("/predict/iris", ROW)).status == 200
        assert await client.metric("prediction_log_rows_total") == 1
        assert await client.metric("prediction_errors_total", reason=problem["code"]) == 1

    serve(scenario, max_batch_rows=10)


def test_every_invalid_field_is_listed_with_its_row(serve: Serve) -> None:
    rows = [ROW, {**ROW, "petal_width": "x", "petal_length": None}, {"sepal_length": 1}]

    async def scenario(client: Client) -> None:
        errors = (await client.post("/predict", {"rows": rows})).json()["errors"]
        assert [(error["row"], error["path"]) for error in errors] == [
            (1, "rows[1].petal_length"),
            (1, "rows[1].petal_width"),
            (2, "rows[2].sepal_width"),
            (2, "rows[2].petal_length"),
            (2, "rows[2].petal_width"),
        ]

    serve(scenario)


def test_the_list_of_errors_is_bounded(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        response = await client.post("/predict", {"rows": [{}] * 5000})
        assert 100 <= len(response.json()["errors"]) < 110

    serve(scenario)


def test_repeated_keys_are_fine_and_the_last_counts(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        body = json.dumps(ROW_2).encode()[:-1] + b"," + json.dumps(ROW).encode()[1:]
        assert (await client.post("/predict", body)).json()["prediction"] == "setosa"

    serve(scenario)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 200),
        ({"content-type": "Application/JSON; charset=UTF-8"}, 200),
        ({"content-type": "application/json; charset=latin-1"}, 415),
        ({"content-type": "text/csv"}, 415),
        ({}, 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ({"content-type": "application/json", "content-length": "2001"}, 413),
    ],
)
def test_content_type_and_length(serve: Serve, headers: dict[str, str], status: int) -> None:
    async def scenario(client: Client) -> None:
        response = await client.request("POST", "/predict", json.dumps(ROW).encode(), headers)
        assert response.status == status

    serve(scenario, max_body_bytes=2000)


def test_a_chunked_body_is_joined_and_limited(serve: Serve) -> None:
    body = json.dumps(ROW).encode()

    async def scenario(client: Client) -> None:
        kind = {"content-type": "application/json"}
        assert (await client.request("POST", "/predict", [body[:10], body[10:], b""], kind)).status == 200
        assert (await client.request("POST", "/predict", [b" " * 1500, b" " * 600, b""], kind)).status == 413
        assert (await client.post("/predict", b" " * 2001)).status == 413

    serve(scenario, max_body_bytes=2000)


def test_a_client_that_leaves_is_neither_answered_nor_counted(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        async def gone() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            raise AssertionError("nobody is there")

        headers = [(b"content-type", b"application/json")]
        await client.front({"type": "http", "method": "POST", "path": "/predict", "headers": headers}, gone, send)
        assert client.engine.metrics.in_flight == 0
        assert client.engine.metrics.requests == 0

    serve(scenario)


def test_other_models_methods_and_routes(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.post("/predict/housing", ROW)).status == 404
        assert (await client.get("/health/housing")).status == 404
        refused = await client.get("/predict/iris")
        assert (refused.status, refused.headers["allow"]) == (405, "POST")
        assert (await client.post("/health", {})).status == 405
        inner = await client.get("/anything")
        assert (inner.status, inner.body, inner.headers["x-slot"]) == (418, b"inner", "blue")
        described = (await client.get("/schema")).json()
        assert described["identity"]["version"] == "3"
        assert described["schema"]["features"][0]["name"] == "sepal_length"

    serve(scenario)


def test_overload_is_answered_quickly(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        client.engine.metrics.in_flight = 2
        response = await client.post("/predict", ROW)
        assert (response.status, response.headers["retry-after"]) == (429, "1")
        client.engine.metrics.in_flight = 0
        assert (await client.post("/predict", ROW)).status == 200

    serve(scenario, max_concurrency=2)


def test_regression_answers_numbers_and_takes_null_for_a_nullable_field(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        answer = (await client.post("/predict/house", {"area": 10, "rooms": 3.0, "age": 4})).json()
        assert answer["prediction"] == pytest.approx(26.0)
        assert "probabilities" not in answer
        assert (await client.post("/predict", {"area": 1, "rooms": 3})).status == 422
        assert (await client.post("/predict", {"area": 1, "rooms": 3.5, "age": 1})).status == 422
        assert (await client.post("/predict", {"area": 1e39, "rooms": 3, "age": 1})).status == 422
        assert (await client.post("/predict", {"area": 1, "rooms": 2**63, "age": 1})).status == 422

    serve(scenario, artefacts=write_house(tmp_path / "house"))


def test_a_prediction_that_is_not_finite_is_refused(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        rows = [{"area": 1, "rooms": 1, "age": 1}, {"area": 3.0e38, "rooms": 1, "age": 1}]
        response = await client.post("/predict", {"rows": rows})
        assert (response.status, response.json()["errors"][0]["row"]) == (422, 1)
        assert await client.metric("prediction_log_rows_total") == 0

    serve(scenario, artefacts=write_house(tmp_path / "house"))


def test_health_asks_the_golden_rows_each_time(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        for path in ("/readyz", "/health", "/health/iris"):
            response = await client.get(path)
            assert (response.status, response.json()["status"]) == (200, "ready")
        artefacts = client.engine._artefacts
        assert artefacts is not None
        artefacts.golden_rows[0] = artefacts.golden_rows[1]
        assert (await client.get("/readyz")).status == 503
        assert (await client.post("/predict", ROW)).status == 503

    serve(scenario)


def test_wrong_golden_rows_keep_it_up_but_never_let_it_answer(serve: Serve, tmp_path: Path) -> None:
    async def scenario(client: Client) -> None:
        for path in ("/readyz", "/health/iris"):
            response = await client.get(path)
            assert (response.status, response.headers["content-type"]) == (503, "application/problem+json")
        assert (await client.post("/predict/iris", ROW)).status == 503
        assert await client.metric("prediction_ready") == 0

    serve(scenario, artefacts=write_iris(tmp_path / "wrong", wrong=True))


@pytest.mark.parametrize("broken", ["model.onnx", "schema.json", "golden.json", "identity.json"])
def test_a_bento_that_cannot_load_says_so(serve: Serve, tmp_path: Path, broken: str) -> None:
    folder = write_iris(tmp_path / "broken")
    (folder / broken).write_bytes(b"?")

    async def scenario(client: Client) -> None:
        response = await client.get("/readyz")
        assert response.status == 503
        assert str(tmp_path) not in response.body.decode()
        assert (await client.post("/predict", ROW)).status == 503
        assert (await client.get("/schema")).status == 503

    serve(scenario, artefacts=folder)


def test_a_bento_started_as_another_version_is_not_ready(serve: Serve) -> None:
    async def scenario(client: Client) -> None:
        assert (await client.get("/readyz")).status == 503

    serve(scenario, model="iris", version="4")


def test_an_internal_error_shows_nothing_of_the_inside(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: Client) -> None:
        artefacts = client.engine._artefacts
        assert artefacts is not None

        def fail(rows: Any) -> Any:
            raise RuntimeError("/secret/path")

        monkeypatch.setattr(artefacts.model, "infer_one", fail)
        response = await client.post("/predict", ROW)
        assert response.status == 500
        assert b"secret" not in response.body
        assert await client.metric("prediction_errors_total", reason="internal") == 1

    serve(scenario)
