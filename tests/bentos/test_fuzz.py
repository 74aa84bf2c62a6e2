"""Schema-driven fuzzing of the gateway: a real Envoy before a real bento keeps every word of the OpenAPI document.

Schemathesis makes requests that fit the document and requests that break it. No answer may be a server error, of an
undocumented status, type, header or shape; what fits must be taken, what breaks the document must be refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from pydantic import SecretStr
from schemathesis.specs.openapi.checks import positive_data_acceptance, unsupported_method
from starlette.applications import Starlette
from starlette.routing import Mount

from contracts.services import RealEnvoy, eventually, free_port, new_envoy
from served_models import Served, house_spec, iris_spec
from slipway.adapters.envoy import EnvoyGateway
from slipway.core.openapi import document
from slipway.core.routes import Backend, Route
from slipway.settings import Settings
from slipway.stack.gateway import GATEWAY_HEADER
from slipway.wiring import Wiring
from slipway_control.access import person_of
from slipway_control.access import slipway as slipway_of
from slipway_control.app import create_app

pytestmark = pytest.mark.services

KEY = "for-this-test-only"
SETTINGS = Settings(control_key=SecretStr(KEY))
MODELS = {"iris": (iris_spec(), "forest_100"), "house": (house_spec(towns=True), "ridge")}
SCHEMA = schemathesis.openapi.from_dict(document([spec for spec, _ in MODELS.values()], 10_000, "1"))
# Envoy's parser knows a fixed list of methods and answers 400 to any other; its own /health does not ask for one.
NOT_CHECKED = [unsupported_method]
EXAMPLES = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False
)


class Actions(Wiring):
    """Slipway with nothing behind it: the control routes answer, and nothing is trained or shifted."""

    def models_info(self) -> dict[str, Any]:
        return {"models": []}

    def traffic_config(self) -> dict[str, Any]:
        return {"models": {}}

    def set_split(self, model: str, weights: Any, *, actor: str, reason: str) -> dict[str, Any]:
        return {"model": model, "weights": weights}

    def key_of(self, key: str) -> dict[str, Any] | None:
        scopes = ["read", "train", "traffic"]
        return {"name": "fuzz", "scopes": scopes, "per_minute": 1_000_000} if key == KEY else None

    def noted(self, action: str, model: str, detail: Any, work: Any, *, actor: str, via: str) -> Any:
        return work()

    def start_training(
        self, model: str, reason: str, dataset: str | None, *, actor: str, traffic: bool = False
    ) -> dict[str, Any]:
        return {"run_id": "manual", "url": "http://127.0.0.1"}


@pytest.fixture(scope="module")
def control_port() -> Iterator[int]:
    """The control API as Airflow mounts it, on a server of its own."""
    app, port = create_app(), free_port()
    app.dependency_overrides[slipway_of] = lambda: Actions(SETTINGS)
    app.dependency_overrides[person_of] = lambda: None
    outer = Starlette(routes=[Mount("/slipway", app)])
    server = uvicorn.Server(uvicorn.Config(outer, port=port, log_level="error", timeout_keep_alive=3600))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    eventually(lambda: server.started, 10, "the control API")
    yield port
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, control_port: int) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fuzz")
    served = [Served(spec, candidate, folder / spec.name) for spec, candidate in MODELS.values()]
    envoy: RealEnvoy = new_envoy(
        folder,
        control_port=control_port,
        max_body_bytes=16 * 1024 * 1024,
        control_headers={GATEWAY_HEADER: SETTINGS.gateway_token},
    )
    try:
        envoy.start()
        admin = EnvoyGateway(envoy.xds_dir, envoy.admin_uri)
        fleet = [Route(one.spec.name, (Backend("blue", one.bento.port, 100),)) for one in served]
        admin.publish(fleet)
        admin.confirm(fleet)
        for one in served:
            uri = f"{envoy.uri}/health/{one.spec.name}"
            eventually(lambda uri=uri: httpx.get(uri, trust_env=False).status_code == 200, 30, uri)
        yield envoy.uri
    finally:
        envoy.kill()
        for one in served:
            one.stop()


@SCHEMA.include(path_regex=r"^/(health|predict|invocations|feedback|metrics)").parametrize()
@EXAMPLES
def test_every_answer_is_as_documented(case: schemathesis.Case, gateway: str) -> None:
    response = case.call(base_url=gateway)
    assert response.headers["x-request-id"]
    case.validate_response(response, excluded_checks=NOT_CHECKED)


@SCHEMA.include(path_regex=r"^/(models/info|config|retrain)").parametrize()
@EXAMPLES
def test_every_answer_of_the_control_routes_is_as_documented(case: schemathesis.Case, gateway: str) -> None:
    headers = {"x-api-key": KEY} if "x-api-key" not in (case.headers or {}) else {}
    response = case.call(base_url=gateway, headers=headers)
    # That the weights add up to 100 is more than a schema can say.
    unsaid = [positive_data_acceptance] if case.method == "PUT" else []
    case.validate_response(response, excluded_checks=[*NOT_CHECKED, *unsaid], headers=headers)
