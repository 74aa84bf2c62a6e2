"""Slots that are known by a name: what Envoy does while the name changes its address or has none."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator

import httpx
import pytest

from contracts.services import Backend as Server
from contracts.services import RealEnvoy
from slipway.adapters import envoy_config
from slipway.adapters.envoy import EnvoyGateway
from slipway.core.routes import Backend, Route
from slipway.errors import GatewayError

pytestmark = pytest.mark.services
NAME = "slipway-code_language-blue"


class Names:
    """A DNS server with one changeable table; what it does not have does not exist."""

    def __init__(self) -> None:
        self.table: dict[str, str] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                query, peer = self._socket.recvfrom(512)
            except OSError:
                return
            self._socket.sendto(self._answer(query), peer)

    def _answer(self, query: bytes) -> bytes:
        end, labels = 12, []
        while query[end]:
            labels.append(query[end + 1 : end + 1 + query[end]].decode())
            end += 1 + query[end]
        question = query[12 : end + 5]
        kind = struct.unpack(">H", question[-4:-2])[0]
        address = self.table.get(".".join(labels))
        found = b""
        if address and kind == 1:
            found = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 600, 4) + socket.inet_aton(address)
        flags = 0x8180 if address else 0x8183
        return query[:2] + struct.pack(">HHHHH", flags, 1, 1 if found else 0, 0, 0) + question + found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    plain = envoy_config.cluster_resources

    def asking_ours(fleet: list[Route]) -> list[dict[str, object]]:
        text = json.dumps(plain(fleet))
        ours = json.dumps([{"socket_address": {"address": "127.0.0.1", "port_value": made.port}}])
        return list(json.loads(text.replace('"query_tries": 1', f'"query_tries": 1, "resolvers": {ours}')))

    monkeypatch.setattr("slipway.adapters.envoy.cluster_resources", asking_ours)
    yield made
    made.close()


@pytest.fixture
def gateway(envoy: RealEnvoy, names: Names) -> Iterator[EnvoyGateway]:
    made = EnvoyGateway(
        envoy.xds_dir, envoy.admin_uri, resolve=lambda name: {names.table[name]} if name in names.table else set()
    )
    yield made
    made.close()


def fleet(port: int, weight: int = 100) -> list[Route]:
    return [Route("code_language", (Backend("blue", port, weight, NAME),))]


def ask(envoy: RealEnvoy) -> httpx.Response:
    return httpx.post(f"{envoy.uri}/predict/code_language", json={}, timeout=20)


def test_a_slot_gets_traffic_once_envoy_has_found_it(envoy: RealEnvoy, gateway: EnvoyGateway, names: Names) -> None:
    server = Server("blue")
    gateway.publish(fleet(server.port, 0))
    names.table[NAME] = "127.0.0.1"
    gateway.publish(fleet(server.port))
    gateway.confirm(fleet(server.port))
    assert ask(envoy).headers["x-slot"] == "blue"
    server.close()


def test_requests_wait_while_a_slot_restarts_at_another_address(
    envoy: RealEnvoy, gateway: EnvoyGateway, names: Names
) -> None:
    names.table[NAME] = "127.0.0.1"
    server = Server("first")
    server.keeps_connections = False
    gateway.publish(fleet(server.port))
    gateway.confirm(fleet(server.port))
    assert ask(envoy).headers["x-slot"] == "first"
    server.close()
    del names.table[NAME]
    gateway.publish(fleet(server.port))  # nobody has the name: nothing to wait for
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(ask(envoy)))
    asking.start()
    asking.join(1.5)
    assert answers == [], "the request should still wait"
    second = Server("second", server.port, host="127.0.0.2")
    names.table[NAME] = "127.0.0.2"
    asking.join(10)
    assert answers[0].headers["x-slot"] == "second"
    second.close()


def test_a_slot_that_envoy_cannot_find_gets_no_traffic(envoy: RealEnvoy, names: Names) -> None:
    gateway = EnvoyGateway(envoy.xds_dir, envoy.admin_uri, resolve=lambda name: {"127.0.0.9"})
    before = gateway.observe().version
    with pytest.raises(GatewayError, match=r"does not find code_language_blue at 127\.0\.0\.9"):
        gateway.publish(fleet(1), wait_seconds=0.3)
    assert gateway.observe().version == before
    gateway.close()


def test_addresses_are_used_as_they_are() -> None:
    (cluster,) = envoy_config.cluster_resources([Route("iris", (Backend("blue", 8200, 100),))])
    assert cluster["type"] == "STATIC"
    assert "dns_refresh_rate" not in cluster
