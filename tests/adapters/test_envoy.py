"""The gateway's contract, asked of a real Envoy."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contracts.services import Backend as Server
from contracts.services import RealEnvoy, eventually, new_envoy
from slipway.adapters.envoy import EnvoyGateway
from slipway.adapters.envoy_replies import BROKEN_OFF
from slipway.core.routes import Backend, Route, differences
from slipway.errors import GatewayError

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def control() -> Iterator[Server]:
    server = Server("control")
    yield server
    server.close()


@pytest.fixture(scope="module")
def slots() -> Iterator[tuple[Server, Server]]:
    servers = (Server("blue"), Server("green"))
    yield servers
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, control: Server) -> Iterator[RealEnvoy]:
    made = new_envoy(tmp_path_factory.mktemp("gateway"), control_port=control.port)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def gateway(real: RealEnvoy) -> Iterator[EnvoyGateway]:
    made = EnvoyGateway(real.xds_dir, real.admin_uri)
    yield made
    made.close()


def iris(slots: tuple[Server, Server], blue: int, green: int) -> Route:
    return Route("iris", (Backend("blue", slots[0].port, blue), Backend("green", slots[1].port, green)))


def put(gateway: EnvoyGateway, *fleet: Route) -> None:
    gateway.publish(fleet)
    gateway.confirm(fleet)


def problem(response: httpx.Response) -> dict[str, object]:
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == response.status_code
    uuid.UUID(response.headers["x-request-id"])
    assert "envoy" not in str(response.headers).lower()
    return dict(body)


def test_weights_are_applied_and_read_back(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]
) -> None:
    put(gateway, iris(slots, 30, 70))
    with httpx.Client(base_url=real.uri) as client:
        answers = Counter(client.post("/predict/iris", json={}).headers["x-slot"] for _ in range(400))
    assert 0.2 < answers["blue"] / 400 < 0.4
    state = gateway.observe()
    assert state.weights == {"iris": {"blue": 30, "green": 70}}
    assert not differences([iris(slots, 30, 70)], state)
    assert state.of("iris", "green").requests >= answers["green"]
    put(gateway, iris(slots, 0, 100))
    with httpx.Client(base_url=real.uri) as client:
        assert {client.post("/predict/iris", json={}).headers["x-slot"] for _ in range(100)} == {"green"}


def test_a_session_key_always_meets_the_same_slot(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]
) -> None:
    put(gateway, iris(slots, 50, 50))
    met: dict[str, set[str]] = {}
    with httpx.Client(base_url=real.uri) as client:
        for number in range(400):
            key = f"user-{number % 40}"
            answer = client.post("/predict/iris", json={}, headers={"x-session-key": key})
            met.setdefault(key, set()).add(answer.headers["x-slot"])
    assert all(len(slots_of_one) == 1 for slots_of_one in met.values())
    assert {slot for slots_of_one in met.values() for slot in slots_of_one} == {"blue", "green"}


@pytest.mark.parametrize(
    ("status", "counted"), [(200, (9, 0, 0)), (422, (9, 0, 9)), (429, (9, 0, 9)), (500, (9, 9, 0))]
)
def test_refused_requests_are_counted_apart_from_errors(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server], status: int, counted: tuple[int, int, int]
) -> None:
    put(gateway, iris(slots, 100, 0))
    before = gateway.observe().of("iris", "blue")
    slots[0].status = status
    try:
        with httpx.Client(base_url=real.uri) as client:
            assert {client.post("/predict/iris", json={}).status_code for _ in range(9)} == {status}
    finally:
        slots[0].status = 200
    now = gateway.observe().of("iris", "blue")
    found = now.requests - before.requests, now.errors - before.errors, now.refused - before.refused
    assert found == counted


@pytest.mark.parametrize("path", ["/health", "/predict/iris", "/nowhere", "/predict/unknown"])
def test_request_ids_are_kept_when_they_are_uuids_and_made_otherwise(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server], path: str
) -> None:
    put(gateway, iris(slots, 100, 0))
    mine = str(uuid.uuid4())
    assert httpx.get(real.uri + path, headers={"x-request-id": mine}).headers["x-request-id"] == mine
    before = time.time_ns() // 1_000_000
    for sent in ({}, {"x-request-id": "not-a-uuid"}, {"x-request-id": mine + "0"}, {"x-request-id": mine + "; DROP"}):
        made = uuid.UUID(httpx.get(real.uri + path, headers=sent).headers["x-request-id"])
        assert made.version == 7
        assert made.variant == uuid.RFC_4122
        assert before <= made.int >> 80 <= time.time_ns() // 1_000_000
    ids = {httpx.get(real.uri + path).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_the_slot_gets_the_request_id_and_no_helper_header(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]
) -> None:
    put(gateway, iris(slots, 100, 0))
    answer = httpx.post(
        real.uri + "/predict/iris", json={}, headers={"x-slipway-shadow": "1", "x-slipway-random": "00"}
    )
    seen = slots[0].requests[-1][2]
    assert seen["x-request-id"] == answer.headers["x-request-id"]
    assert not [name for name in seen if name.startswith("x-slipway")]


def test_unknown_models_routes_and_models_without_a_version(real: RealEnvoy, gateway: EnvoyGateway) -> None:
    put(gateway, Route("iris", (Backend("blue", 9, 0), Backend("green", 10, 0))))
    for path in (
        "/predict/nope",
        "/predict/",
        "/feedback/nope",
        "/health/nope",
        "/metrics/nope",
        "/",
        "/predict/iris/x",
    ):
        assert problem(httpx.get(real.uri + path))["status"] == 404, path
    for path in ("/predict/iris", "/invocations/iris", "/feedback/iris"):
        answer = problem(httpx.post(real.uri + path, json={}))
        assert answer["status"] == 503
        assert "no version of iris is live" in str(answer["detail"])
    assert problem(httpx.get(real.uri + "/predict/..%2f..%2fetc"))["status"] == 404
    assert httpx.get(real.uri + "/health").json() == {"status": "ok"}


def test_a_dead_slot_is_503_without_internals(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server("brief")
    port = server.port
    server.close()
    put(gateway, Route("iris", (Backend("blue", port, 100),)))
    answer = problem(httpx.post(real.uri + "/predict/iris", json={}, timeout=40))
    assert answer["status"] == 503
    assert "upstream" not in str(answer)
    assert answer["detail"] != BROKEN_OFF


def test_a_slot_that_ends_while_it_has_a_request_is_told_apart(real: RealEnvoy, gateway: EnvoyGateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        put(gateway, Route("iris", (Backend("blue", server.getsockname()[1], 100),)))

        def take_and_end() -> None:
            taken, _ = server.accept()
            taken.recv(65536)
            taken.close()

        thread = threading.Thread(target=take_and_end)
        thread.start()
        answer = problem(httpx.post(real.uri + "/predict/iris", json={}, timeout=40))
        thread.join()
    assert (answer["status"], answer["detail"]) == (503, BROKEN_OFF)


@pytest.mark.parametrize("away_seconds", [1.0, 10.0])
def test_a_slot_that_restarts_within_seconds_costs_no_request(
    real: RealEnvoy, gateway: EnvoyGateway, away_seconds: float
) -> None:
    server = Server("first")
    put(gateway, Route("iris", (Backend("blue", server.port, 100),)))
    server.close()
    again: list[Server] = []
    timer = threading.Timer(away_seconds, lambda: again.append(Server("second", server.port)))
    timer.start()
    try:
        assert httpx.post(real.uri + "/predict/iris", json={}, timeout=40).headers["x-slot"] == "second"
    finally:
        timer.join()
        again[0].close()


@pytest.mark.parametrize("client", ["httpx", "http.client", "chunked"])
def test_sixty_megabytes_are_refused_readably(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server], client: str
) -> None:
    put(gateway, iris(slots, 100, 0))
    body = b"x" * (60_000_000 if client == "chunked" else 7_000_000)
    seen = len(slots[0].requests)
    if client == "http.client":
        connection = http.client.HTTPConnection("127.0.0.1", real.gateway_port)
        connection.request("POST", "/predict/iris", body)
        response = connection.getresponse()
        assert response.status == 413
        assert json.loads(response.read())["title"] == "Content too large"
        connection.close()
    else:
        content = (body[i : i + 65536] for i in range(0, len(body), 65536)) if client == "chunked" else body
        assert problem(httpx.post(real.uri + "/predict/iris", content=content, timeout=30))["status"] == 413
    assert len(slots[0].requests) == seen
    assert httpx.post(real.uri + "/predict/iris", content=b"x" * 999_000).status_code == 200


def test_what_is_not_http_is_a_problem_too(real: RealEnvoy) -> None:
    for sent, status in (
        (b"BAD\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", 431),
    ):
        with socket.create_connection(("127.0.0.1", real.gateway_port), timeout=5) as connection:
            connection.sendall(sent)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"application/problem+json" in head
        assert b"x-request-id" in head
        assert json.loads(body)["status"] == status


def test_control_routes_reach_the_control_api(real: RealEnvoy, gateway: EnvoyGateway, control: Server) -> None:
    put(gateway)
    for path in ("/models/info", "/config", "/config/iris", "/retrain/iris", "/docs", "/docs/a.js", "/openapi.json"):
        answer = httpx.get(real.uri + path, params={"q": "1"}, headers={"x-api-key": "k"})
        assert answer.text.startswith("control"), path
        method, seen, headers = control.requests[-1]
        assert (method, seen, headers["x-api-key"]) == ("GET", f"/slipway/api{path}?q=1", "k")
        uuid.UUID(answer.headers["x-request-id"])
    assert problem(httpx.get(real.uri + "/models/infos"))["status"] == 404


def test_confirm_says_when_envoy_applies_something_else(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]
) -> None:
    put(gateway, iris(slots, 100, 0))
    with pytest.raises(GatewayError, match="applies routes"):
        gateway.confirm([iris(slots, 0, 100)], wait_seconds=0.05)
    assert differences([iris(slots, 0, 100)], gateway.observe()) == {"iris": ({"green": 100}, {"blue": 100})}


def test_envoy_down_at_publish_reads_the_files_when_it_returns(tmp_path: Path, slots: tuple[Server, Server]) -> None:
    real = new_envoy(tmp_path)
    real.start()
    gateway = EnvoyGateway(real.xds_dir, real.admin_uri)
    try:
        real.kill()
        fleet = [iris(slots, 100, 0)]
        gateway.publish(fleet)
        with pytest.raises(GatewayError, match="does not answer"):
            gateway.confirm(fleet)
        real.start()
        assert gateway.confirm(fleet).weights == {"iris": {"blue": 100}}
        eventually(lambda: httpx.post(real.uri + "/predict/iris", json={}).headers["x-slot"] == "blue")
    finally:
        gateway.close()
        real.kill()


def test_refused_routes_are_an_error_and_the_old_ones_stay(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]
) -> None:
    put(gateway, iris(slots, 100, 0))
    good = (real.xds_dir / "rds.json").read_text()
    broken = real.xds_dir / "aside.json"
    broken.write_text(good.replace('"weight": 100', '"weight": -1').replace('"version_info": "', '"version_info": "x'))
    broken.rename(real.xds_dir / "rds.json")
    assert httpx.post(real.uri + "/predict/iris", json={}).headers["x-slot"] == "blue"
    put(gateway, iris(slots, 0, 100))
    assert httpx.post(real.uri + "/predict/iris", json={}).headers["x-slot"] == "green"


def test_two_hundred_swaps_lose_nothing(real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]) -> None:
    put(gateway, iris(slots, 100, 0))
    with httpx.Client(base_url=real.uri) as client:
        for number in range(100):
            blue = 100 * (number % 2)
            put(gateway, iris(slots, blue, 100 - blue))
            assert client.post("/predict/iris", json={}).headers["x-slot"] == ("blue" if blue else "green")
