"""HTTPS at a real Envoy: who is trusted, and a certificate that changes while it runs."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from contracts.services import RealEnvoy, eventually, new_envoy
from slipway.adapters.certificate import generated_certificate, trust_exactly
from slipway.adapters.envoy import publish_certificate
from slipway.core.edge import Edge

pytestmark = pytest.mark.services
NAMES = ["localhost", "127.0.0.1"]


@pytest.fixture
def real(tmp_path: Path) -> Iterator[RealEnvoy]:
    made = new_envoy(tmp_path, edge=Edge(tls=True))
    publish_certificate(made.xds_dir, *generated_certificate(tmp_path / "tls", NAMES, datetime.now(UTC)))
    made.start()
    yield made
    made.kill()


def presented(real: RealEnvoy) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", real.gateway_port)) as plain, context.wrap_socket(plain) as secure:
        return secure.getpeercert(binary_form=True) or b""


def test_our_own_clients_trust_this_certificate_alone(real: RealEnvoy, tmp_path: Path) -> None:
    own = (tmp_path / "tls" / "gateway.crt").read_text()
    answer = httpx.get(real.uri + "/health", verify=trust_exactly(own))
    assert answer.json() == {"status": "ok"}
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    other, _ = generated_certificate(tmp_path / "other", NAMES, datetime.now(UTC))
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(real.uri + "/health", verify=trust_exactly(other))
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(real.uri + "/health")


def test_browsers_that_import_it_find_their_name_in_it(real: RealEnvoy, tmp_path: Path) -> None:
    context = ssl.create_default_context(cadata=(tmp_path / "tls" / "gateway.crt").read_text())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for host in NAMES:
        assert httpx.get(f"https://{host}:{real.gateway_port}/health", verify=context).status_code == 200


def test_what_is_old_or_plain_is_refused(real: RealEnvoy) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{real.gateway_port}/health")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", real.gateway_port)) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain)


def test_a_renewed_certificate_is_shown_without_a_restart(real: RealEnvoy, tmp_path: Path) -> None:
    before = presented(real)
    later = datetime.now(UTC) + timedelta(days=370)
    assert not publish_certificate(real.xds_dir, *generated_certificate(tmp_path / "tls", NAMES, datetime.now(UTC)))
    with httpx.Client(verify=False) as lasting:
        lasting.get(real.uri + "/health")
        assert publish_certificate(real.xds_dir, *generated_certificate(tmp_path / "tls", NAMES, later))
        eventually(lambda: presented(real) != before, what="the new certificate")
        assert lasting.get(real.uri + "/health").status_code == 200, "connections go on"
    assert (real.xds_dir / "certificate.json").stat().st_mode & 0o777 == 0o600
    key = (tmp_path / "tls" / "gateway.key").read_text().splitlines()[1]
    assert key not in httpx.get(real.admin_uri + "/config_dump").text
