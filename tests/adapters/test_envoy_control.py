"""The control API knows by a header which requests came through the gateway; no client can set it there."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from contracts.services import Backend, new_envoy
from slipway.adapters.envoy import write_bootstrap

pytestmark = pytest.mark.services


def test_the_gateway_says_who_it_is_whatever_the_client_says(tmp_path: Path) -> None:
    control = Backend("control")
    envoy = new_envoy(tmp_path, control_port=control.port)
    write_bootstrap(
        envoy.xds_dir,
        gateway_port=envoy.gateway_port,
        admin_port=envoy.admin_port,
        control_port=control.port,
        control_headers={"x-slipway-gateway": "the-token"},
    )
    envoy.start()
    try:
        for sent in ({}, {"x-slipway-gateway": "guessed"}, {"X-Slipway-Gateway": "the-token, more"}):
            answer = httpx.post(f"{envoy.uri}/retrain/iris", headers=sent)
            assert answer.text.startswith("control")
            assert control.requests[-1][2]["x-slipway-gateway"] == "the-token"
            assert "the-token" not in str(answer.headers)
    finally:
        envoy.kill()
        control.close()
