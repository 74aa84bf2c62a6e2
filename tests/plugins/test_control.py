"""The control API without Airflow around it: who may, errors as problem documents, and what reaches Slipway."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from slipway.errors import ConflictError, NotFoundError, StackError
from slipway.settings import PROJECT_DIR, Settings
from slipway.spec import load_model
from slipway.wiring import Wiring
from slipway_control.access import limits, person_of
from slipway_control.access import slipway as slipway_of
from slipway_control.app import create_app

KEY = {"x-api-key": "the-key"}


class Recorder(Wiring):
    """Slipway whose actions are only remembered, or fail as told."""

    def __init__(self) -> None:
        super().__init__(Settings(control_key=SecretStr("the-key"), airflow_secret_key=SecretStr("s")))
        self.asked: list[Any] = []
        self.noted_actions: list[Any] = []
        self.error: Exception | None = None

    def key_of(self, key: str) -> dict[str, Any] | None:
        if key == "read-key":
            return {"name": "reader", "scopes": ["read"], "per_minute": 60}
        if key == "train-key":
            return {"name": "trainer", "scopes": ["train"], "per_minute": 3}
        return super().key_of(key) if key == "the-key" else None

    def noted(self, action: str, model: str, detail: Any, work: Any, *, actor: str, via: str) -> Any:
        self.noted_actions.append((action, model, actor, via))
        return work()

    def _answer(self, *asked: Any) -> dict[str, Any]:
        if self.error:
            raise self.error
        self.asked.append(asked)
        return {"asked": list(map(str, asked))}

    def models_info(self) -> dict[str, Any]:
        return self._answer("info")

    def traffic_config(self) -> dict[str, Any]:
        return self._answer("config")

    def abort(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        return self._answer("abort", model, actor, reason)

    def approve(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        return self._answer("approve", model, actor, reason)

    def roll_back(
        self, model: str, version: str | None, *, actor: str, reason: str, run: str | None = None
    ) -> dict[str, Any]:
        return self._answer("rollback", model, version, actor, reason)

    def set_split(self, model: str, weights: Any, *, actor: str, reason: str) -> dict[str, Any]:
        return self._answer("split", model, dict(weights), actor)

    def start_training(
        self, model: str, reason: str, dataset: str | None, *, actor: str, traffic: bool = False
    ) -> dict[str, Any]:
        name = load_model(PROJECT_DIR / "include" / "fleet", model).name
        return self._answer("drift" if traffic else "train", name, reason, dataset, actor)


@pytest.fixture
def slipway() -> Recorder:
    return Recorder()


@pytest.fixture
def client(slipway: Recorder) -> Iterator[TestClient]:
    app = create_app()
    app.dependency_overrides[slipway_of] = lambda: slipway
    app.dependency_overrides[person_of] = lambda: None
    limits.forget()
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


def test_the_gateway_shows_what_is_live_to_everybody_and_this_port_does_not(
    client: TestClient, slipway: Recorder
) -> None:
    gateway = {"x-slipway-gateway": slipway.settings.gateway_token}
    for route in ("/api/models/info", "/api/config", "/api/docs", "/api/openapi.json", "/api/docs/swagger-ui.css"):
        assert client.get(route, headers=gateway).status_code == 200
        assert is_problem(client.get(route), 401)
        assert is_problem(client.get(route, headers={"x-slipway-gateway": "guessed"}), 401)
    for route in ("/api/ledger", "/api/decisions", "/api/actions", "/fleet", "/static/any/cockpit.css"):
        assert is_problem(client.get(route, headers=gateway), 401)
    assert is_problem(client.post("/api/retrain/iris", headers=gateway), 401)


def test_a_key_may_do_what_its_scopes_say(client: TestClient, slipway: Recorder) -> None:
    assert client.get("/api/models/info", headers={"x-api-key": "read-key"}).status_code == 200
    assert is_problem(client.post("/api/retrain/iris", headers={"x-api-key": "read-key"}), 403)
    assert is_problem(client.get("/api/ledger", headers={"x-api-key": "train-key"}), 403)
    assert is_problem(client.post("/api/abort/iris", headers={"x-api-key": "train-key"}), 403)
    assert client.post("/api/retrain/iris", headers={"x-api-key": "train-key"}).status_code == 202
    assert slipway.noted_actions == [("retrain", "iris", "trainer", "key")]


def test_too_many_actions_are_refused_for_a_while(client: TestClient, slipway: Recorder) -> None:
    answers = [client.post("/api/retrain/iris", headers={"x-api-key": "train-key"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 429, 429]
    assert is_problem(answers[-1], 429)
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 20
    assert client.post("/api/retrain/iris", headers=KEY).status_code == 202


def test_actions_on_a_rollout_reach_slipway_with_who_and_why(client: TestClient, slipway: Recorder) -> None:
    assert client.post("/api/approve/iris", headers=KEY, json={"reason": "looks well"}).status_code == 200
    assert client.post("/api/abort/iris", headers=KEY).status_code == 200
    assert client.post("/api/rollback/iris", headers=KEY, json={"version": "2"}).status_code == 200
    assert slipway.asked == [
        ("approve", "iris", "control-api", "looks well"),
        ("abort", "iris", "control-api", "abort asked for by hand"),
        ("rollback", "iris", "2", "control-api", "rolled back by hand"),
    ]
    assert [one[0] for one in slipway.noted_actions] == ["approve", "abort", "rollback"]
    assert is_problem(client.post("/api/rollback/iris", headers=KEY, json={"version": "two"}), 422)
    slipway.error = ConflictError("nobody was asked")
    assert is_problem(client.post("/api/approve/iris", headers=KEY), 409)


def test_what_takes_long_goes_on_after_the_answer(
    client: TestClient, slipway: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, ended = threading.Event(), threading.Event()

    def abort(model: str, *, actor: str, reason: str) -> dict[str, Any]:
        may_end.wait(10)
        ended.set()
        return {}

    monkeypatch.setattr(slipway, "abort", abort)
    monkeypatch.setattr("slipway_control.acts._ANSWER_SECONDS", 0.01)
    answer = client.post("/api/abort/iris", headers=KEY)
    assert (answer.status_code, answer.json()["under_way"]) == (202, True)
    may_end.set()
    assert ended.wait(10)


def test_the_document_lists_every_route_of_the_api(client: TestClient) -> None:
    paths = client.get("/api/openapi.json", headers=KEY).json()["paths"]
    wanted = {"models/info", "config", "decisions", "ledger", "ledger/at", "config/{model}", "rollout/{model}"}
    wanted |= {f"{name}/{{model}}" for name in ("retrain", "release", "promote", "abort", "rollback", "approve")}
    assert {f"/api/{name}" for name in wanted} <= set(paths)


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
    assert client.post("/api/retrain/iris", headers=KEY, json={"traffic": True}).status_code == 202
    assert slipway.asked == [
        ("train", "iris", "manual", None, "control-api"),
        ("train", "iris", "scheduled", None, "control-api"),
        ("drift", "iris", "manual", None, "control-api"),
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
    answer = client.get("/api/models/info", headers=KEY)
    assert is_problem(answer, status)
    assert "/path" not in answer.text


def test_unknown_routes_and_methods_are_problems(client: TestClient) -> None:
    assert is_problem(client.get("/api/nothing"), 404)
    assert is_problem(client.delete("/api/models/info"), 405)


def test_the_docs_page_needs_no_other_server(client: TestClient, slipway: Recorder) -> None:
    client.headers["x-slipway-gateway"] = slipway.settings.gateway_token
    page = client.get("/api/docs").text
    assert "http://" not in page
    assert "https://" not in page
    assert client.get("/api/docs/swagger-ui-bundle.js").status_code == 200
    assert "/predict/iris" in client.get("/api/openapi.json").json()["paths"]
