"""The control API without Airflow around it: keys, errors as problem documents, and what reaches Slipway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from slipway.errors import ConflictError, NotFoundError, StackError
from slipway.settings import PROJECT_DIR, Settings
from slipway.spec import load_model
from slipway.wiring import Wiring
from slipway_control.app import _slipway, create_app

KEY = {"x-api-key": "the-key"}


class Recorder(Wiring):
    """Slipway whose actions are only remembered, or fail as told."""

    def __init__(self) -> None:
        super().__init__(Settings(control_key=SecretStr("the-key")))
        self.asked: list[Any] = []
        self.error: Exception | None = None

    def _answer(self, *asked: Any) -> dict[str, Any]:
        if self.error:
            raise self.error
        self.asked.append(asked)
        return {"asked": list(map(str, asked))}

    def models_info(self) -> dict[str, Any]:
        return self._answer("info")

    def set_split(self, model: str, weights: Any, *, actor: str, reason: str) -> dict[str, Any]:
        return self._answer("split", model, dict(weights), actor)

    def start_training(self, model: str, reason: str, dataset: str | None, *, actor: str) -> dict[str, Any]:
        return self._answer("train", load_model(PROJECT_DIR / "include" / "fleet", model).name, reason, dataset, actor)


@pytest.fixture
def slipway() -> Recorder:
    return Recorder()


@pytest.fixture
def client(slipway: Recorder) -> Iterator[TestClient]:
    app = create_app()
    app.dependency_overrides[_slipway] = lambda: slipway
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def is_problem(answer: Any, status: int) -> bool:
    return (
        answer.status_code == status
        and answer.headers["content-type"] == "application/problem+json"
        and answer.json()["status"] == status
    )


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"x-api-key": "other"}, 403), ({"x-api-key": "ключ"}, 403)]
)
def test_actions_need_the_key(client: TestClient, slipway: Recorder, headers: dict[str, str], status: int) -> None:
    raw = {name: value.encode() for name, value in headers.items()}
    assert is_problem(client.post("/api/retrain/iris", headers=raw), status)
    split = {"weights": {"champion": 100}}
    assert is_problem(client.put("/api/config/iris", json=split, headers=raw), status)
    assert slipway.asked == []


def test_reading_needs_no_key(client: TestClient) -> None:
    assert client.get("/api/models/info").json() == {"asked": ["info"]}


def test_a_split_reaches_slipway(client: TestClient, slipway: Recorder) -> None:
    split = {"weights": {"champion": 70, "challenger": 30}}
    assert client.put("/api/config/iris", json=split, headers=KEY).status_code == 200
    assert slipway.asked == [("split", "iris", {"champion": 70, "challenger": 30}, "control-api")]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"weights": {"champion": 70}},
        {"weights": {"champion": 70, "challenger": 40}},
        {"weights": {"champion": 70, "challenger": 30, "other": 0}},
        {"weights": {"champion": "70", "challenger": 30}},
        {"weights": {"champion": 101, "challenger": -1}},
        {"weights": {"champion": 70.5, "challenger": 29.5}},
    ],
)
def test_a_wrong_split_is_refused(client: TestClient, slipway: Recorder, body: Any) -> None:
    assert is_problem(client.put("/api/config/iris", json=body, headers=KEY), 422)
    assert slipway.asked == []


def test_malformed_json_and_wrong_types(client: TestClient) -> None:
    json_type = {"content-type": "application/json"}
    assert is_problem(client.put("/api/config/iris", content=b"{", headers=KEY | json_type), 400)
    assert is_problem(client.put("/api/config/iris", content=b"{}", headers=KEY | {"content-type": "text/csv"}), 415)


def test_retrain_is_accepted_with_and_without_a_wish(client: TestClient, slipway: Recorder) -> None:
    assert client.post("/api/retrain/iris", headers=KEY).status_code == 202
    assert client.post("/api/retrain/iris", headers=KEY, json={"reason": "scheduled"}).status_code == 202
    assert slipway.asked == [
        ("train", "iris", "manual", None, "control-api"),
        ("train", "iris", "scheduled", None, "control-api"),
    ]
    assert is_problem(client.post("/api/retrain/iris", headers=KEY, json={"reason": "because"}), 422)
    assert is_problem(client.post("/api/retrain/rose", headers=KEY), 404)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFoundError("gone"), 404),
        (ConflictError("busy"), 409),
        (StackError("down"), 503),
        (RuntimeError("/path"), 503),
    ],
)
def test_errors_become_problems_without_a_trace(
    client: TestClient, slipway: Recorder, error: Exception, status: int
) -> None:
    slipway.error = error
    answer = client.get("/api/models/info")
    assert is_problem(answer, status)
    assert "/path" not in answer.text


def test_unknown_routes_and_methods_are_problems(client: TestClient) -> None:
    assert is_problem(client.get("/api/nothing"), 404)
    assert is_problem(client.delete("/api/models/info"), 405)


def test_the_docs_page_needs_no_other_server(client: TestClient) -> None:
    page = client.get("/api/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert client.get("/api/docs/swagger-ui-bundle.js").status_code == 200
    assert "/predict/iris" in client.get("/api/openapi.json").json()["paths"]
