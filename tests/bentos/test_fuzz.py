"""Schema-driven fuzzing of the gateway: a real Envoy before a real bento keeps every word of the OpenAPI document.

Schemathesis makes requests that fit the document and requests that break it. No answer may be a server error, of an
undocumented status, type, header or shape; what fits must be taken, what breaks the document must be refused.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import unsupported_method

from contracts.services import RealEnvoy, eventually, new_envoy
from served_models import Served, house_spec, iris_spec
from slipway.adapters.envoy import EnvoyGateway
from slipway.core.openapi import document
from slipway.core.routes import Backend, Route

pytestmark = pytest.mark.services

MODELS = {"iris": (iris_spec(), "forest_100"), "house": (house_spec(towns=True), "ridge")}
SCHEMA = schemathesis.openapi.from_dict(document([spec for spec, _ in MODELS.values()], 10_000, "1"))
# Envoy's parser knows a fixed list of methods and answers 400 to any other; its own /health does not ask for one.
NOT_CHECKED = [unsupported_method]
EXAMPLES = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False
)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("fuzz")
    served = [Served(spec, candidate, folder / spec.name) for spec, candidate in MODELS.values()]
    envoy: RealEnvoy = new_envoy(folder, max_body_bytes=16 * 1024 * 1024)
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
