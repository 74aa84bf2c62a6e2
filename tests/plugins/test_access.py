"""Nobody gets in without a session or a key, no other site may use a session, and viewers only look."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient
from pydantic import SecretStr

from cockpit.routes import actions, every_route
from cockpit.server import cockpit
from slipway.settings import Settings
from slipway.wiring import Wiring
from slipway_control.access import LoginNeededError, csrf_token, person_of
from slipway_control.airflow_session import COOKIE
from slipway_control.limits import RateLimit

HTML = {"accept": "text/html"}


class Quiet(Wiring):
    """Slipway that remembers what it was asked to do, and knows nothing."""

    def __init__(self) -> None:
        super().__init__(Settings(control_key=SecretStr("k"), airflow_secret_key=SecretStr("s")))
        self.asked: list[str] = []

    def key_of(self, key: str) -> dict[str, Any] | None:
        return None

    def noted(self, action: str, model: str, detail: Any, work: Any, *, actor: str, via: str) -> Any:
        self.asked.append(action)
        return {}

    def through_gateway(self, route: str, model: str, body: bytes) -> Any:
        self.asked.append(route)
        return 200, {}, {}


@pytest.fixture
def slipway() -> Quiet:
    return Quiet()


@pytest.fixture
def client(slipway: Quiet, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    # Airflow's own takes seconds to import.
    monkeypatch.setattr("slipway_control.app.login_url", lambda request: f"/auth/login?next={request.url}")
    with TestClient(cockpit(slipway), raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


def test_without_login_every_route_refuses(client: TestClient, slipway: Quiet) -> None:
    for method, path in every_route(client.app):
        for headers in ({}, HTML, {"x-api-key": "wrong"}, {"x-slipway-gateway": "guessed"}):
            answer = client.request(method, path, headers=headers, json={} if method != "GET" else None)
            to_login = answer.headers.get("location", "").startswith("/auth/login?next=")
            assert answer.status_code == 303 if to_login else answer.status_code in (401, 403), (method, path, headers)
            assert not to_login or headers == HTML
            assert "iris" not in answer.text.replace("/iris", "")
    assert slipway.asked == []


def test_a_viewer_is_refused_every_action(client: TestClient, slipway: Quiet) -> None:
    client.cookies.set(COOKIE, "viewer")
    headers = {"x-csrf-token": csrf_token(slipway, "viewer")}
    for method, path in actions(client.app):
        answer = client.request(method, path, headers=headers, json={"weights": {"champion": 100}})
        assert answer.status_code == 403, (method, path)
    assert slipway.asked == []


def test_an_operator_acts_with_the_pages_token_only(client: TestClient, slipway: Quiet) -> None:
    client.cookies.set(COOKIE, "operator")
    for token in ("", "x", csrf_token(slipway, "viewer"), csrf_token(slipway, "operator")[:-1]):
        assert client.post("/api/retrain/iris", headers={"x-csrf-token": token}).status_code == 403
    assert slipway.asked == []
    good = {"x-csrf-token": csrf_token(slipway, "operator")}
    assert client.post("/api/retrain/iris", headers=good).status_code == 202
    assert slipway.asked == ["retrain"]


def test_an_airflow_token_needs_no_page(client: TestClient, slipway: Quiet) -> None:
    assert client.post("/api/retrain/iris", headers={"authorization": "Bearer operator"}).status_code == 202
    assert client.post("/api/retrain/iris", headers={"authorization": "Bearer viewer"}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
    ],
)
def test_another_site_cannot_use_the_session(client: TestClient, slipway: Quiet, headers: dict[str, str]) -> None:
    client.cookies.set(COOKIE, "operator")
    everything = headers | {"x-csrf-token": csrf_token(slipway, "operator")}
    for method, path in every_route(client.app):
        assert client.request(method, path, headers=everything, json={}).status_code == 403, (method, path)
    assert slipway.asked == []


def test_a_followed_link_from_elsewhere_opens_a_page_and_a_posted_form_does_nothing(
    client: TestClient, slipway: Quiet
) -> None:
    client.cookies.set(COOKIE, "operator")
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/", headers=followed | HTML).status_code == 303
    token = {"x-csrf-token": csrf_token(slipway, "operator")}
    assert client.post("/api/retrain/iris", headers=followed | token).status_code == 403


def test_every_answer_forbids_what_pages_do_not_need(client: TestClient) -> None:
    client.cookies.set(COOKIE, "operator")
    answer = client.get("/static/any/cockpit.css")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'self'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "..%2f..%2fx/run/drift.html",
        "iris/..%2f..%2fdata/a.html",
        "iris/run/..%2fa.html",
        "iris/%2e%2e/a.html",
        "iris/r/.a",
    ],
)
def test_no_name_leaves_the_reports_folder(client: TestClient, path: str) -> None:
    client.cookies.set(COOKIE, "operator")
    assert client.get(f"/report-content/{path}").status_code in (404, 422)


def test_the_rate_limit_refills_evenly() -> None:
    now = [0.0]
    limit = RateLimit(lambda: now[0])
    assert [limit.take("a", 2) for _ in range(3)] == [0.0, 0.0, 30.0]
    assert limit.take("b", 2) == 0.0
    now[0] = 30.0
    assert limit.take("a", 2) == 0.0
    assert limit.take("a", 2) == 30.0


@pytest.mark.parametrize(
    ("accept", "path", "error"),
    [
        ("text/html", "/fleet", LoginNeededError),
        ("text/html", "/api/ledger", HTTPException),
        ("*/*", "/fleet", HTTPException),
    ],
)
def test_a_session_that_has_ended_leads_people_to_the_login(
    monkeypatch: pytest.MonkeyPatch, accept: str, path: str, error: type[Exception]
) -> None:
    async def ended(request: Request) -> None:
        raise HTTPException(401, "Token Expired")

    monkeypatch.setattr("slipway_control.access.user_of", ended)
    headers = [(b"accept", accept.encode()), (b"host", b"here")]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    with pytest.raises(error):
        asyncio.run(person_of(Request(scope)))
    through_gateway = scope | {"headers": [*headers, (b"x-slipway-gateway", b"any")]}
    assert asyncio.run(person_of(Request(through_gateway))) is None
