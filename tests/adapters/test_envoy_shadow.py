"""Mirrored traffic with the real Envoy: what the copy looks like, and who gets none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contracts.services import Backend as Server
from contracts.services import RealEnvoy, eventually, new_envoy
from slipway.adapters.envoy import EnvoyGateway
from slipway.core.routes import Backend, Route

pytestmark = pytest.mark.services
REQUEST_ID = "0198c6b4-31b6-7be2-9f0a-6a1b2c3d4e5f"


@pytest.fixture
def slots() -> Iterator[tuple[Server, Server]]:
    made = Server("blue"), Server("green")
    yield made
    for server in made:
        server.close()


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealEnvoy]:
    made = new_envoy(tmp_path)
    made.start()
    yield made
    made.kill()


def mirrored(slots: tuple[Server, Server], percent: int) -> Route:
    backends = (Backend("blue", slots[0].port, 100), Backend("green", slots[1].port, 0))
    return Route("iris", backends, "green" if percent else None, percent)


@pytest.fixture
def gateway(real: RealEnvoy, slots: tuple[Server, Server]) -> Iterator[EnvoyGateway]:
    made = EnvoyGateway(real.xds_dir, real.admin_uri)
    made.publish([mirrored(slots, 100)])
    made.confirm([mirrored(slots, 100)])
    yield made
    made.close()


def test_only_the_copy_says_that_it_is_a_shadow_whatever_the_client_sends(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]
) -> None:
    forged = {"x-slipway-shadow": "1", "x-request-id": REQUEST_ID, "host": "gateway-shadow"}
    answer = httpx.post(f"{real.uri}/predict/iris", json={"a": 1}, headers=forged)
    assert answer.headers["x-slot"] == "blue"
    eventually(lambda: slots[1].requests, what="the mirrored request")
    own, copy = slots[0].requests[-1][2], slots[1].requests[-1][2]
    assert "x-slipway-shadow" not in own
    assert copy["x-slipway-shadow"] == "1"
    assert own["x-request-id"] == copy["x-request-id"] == REQUEST_ID
    assert copy["content-length"] == own["content-length"]


def test_a_shadow_neither_slows_nor_fails_the_answer(
    real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]
) -> None:
    slots[1].status, slots[1].delay_seconds = 500, 2.0
    answer = httpx.post(f"{real.uri}/predict/iris", json={})
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() < 1.0


def test_the_share_is_read_back_and_ends(real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]) -> None:
    state = gateway.observe()
    assert (state.shadows, state.weights) == ({"iris": {"green": 100}}, {"iris": {"blue": 100}})
    gateway.publish([mirrored(slots, 30)])
    assert gateway.confirm([mirrored(slots, 30)]).shadows == {"iris": {"green": 30}}
    with httpx.Client(base_url=real.uri) as client:
        for _ in range(300):
            client.post("/predict/iris", json={})
    eventually(lambda: len(slots[1].requests) > 50)
    assert len(slots[1].requests) < 150
    gateway.publish([mirrored(slots, 0)])
    assert gateway.confirm([mirrored(slots, 0)]).shadows == {}
    before = len(slots[1].requests)
    assert httpx.post(f"{real.uri}/predict/iris", json={}).status_code == 200
    assert len(slots[1].requests) <= before + 1


def test_labels_are_never_mirrored(real: RealEnvoy, gateway: EnvoyGateway, slots: tuple[Server, Server]) -> None:
    httpx.post(f"{real.uri}/feedback/iris", json={})
    httpx.post(f"{real.uri}/invocations/iris", json={})
    eventually(lambda: slots[1].requests)
    assert [path for _, path, _ in slots[1].requests] == ["/invocations/iris"]
