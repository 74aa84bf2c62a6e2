from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from slipway.adapters.certificate import expires_at, generated_certificate, given_certificate
from slipway.errors import GatewayError

NOW = datetime(2026, 11, 20, tzinfo=UTC)
NAMES = ["localhost", "127.0.0.1", "gateway.example"]


def test_a_certificate_is_made_once_and_renewed_before_it_expires(tmp_path: Path) -> None:
    chain, key = generated_certificate(tmp_path / "tls", NAMES, NOW)
    assert stat.S_IMODE((tmp_path / "tls" / "gateway.key").stat().st_mode) == 0o600
    assert generated_certificate(tmp_path / "tls", NAMES[:2], NOW + timedelta(days=366)) == (chain, key)
    renewed, other_key = generated_certificate(tmp_path / "tls", NAMES, NOW + timedelta(days=368))
    assert renewed != chain
    assert other_key != key
    assert expires_at(renewed) > expires_at(chain) + timedelta(days=360)


def test_a_further_name_makes_another_one(tmp_path: Path) -> None:
    chain, _ = generated_certificate(tmp_path, NAMES, NOW)
    more, _ = generated_certificate(tmp_path, [*NAMES, "10.0.0.7"], NOW)
    names = x509.load_pem_x509_certificate(more.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert more != chain
    assert "gateway.example" in names.value.get_values_for_type(x509.DNSName)
    assert len(names.value.get_values_for_type(x509.IPAddress)) == 2


def test_a_torn_pair_is_made_anew(tmp_path: Path) -> None:
    chain, _ = generated_certificate(tmp_path / "a", NAMES, NOW)
    _, other = generated_certificate(tmp_path / "b", NAMES, NOW)
    (tmp_path / "a" / "gateway.key").write_text(other)
    again, key = generated_certificate(tmp_path / "a", NAMES, NOW)
    assert again != chain
    assert key != other


def test_given_files_are_checked_before_they_are_used(tmp_path: Path) -> None:
    pair = generated_certificate(tmp_path / "a", NAMES, NOW)
    generated_certificate(tmp_path / "b", NAMES, NOW)
    certificate, key = tmp_path / "a" / "gateway.crt", tmp_path / "a" / "gateway.key"
    assert given_certificate(certificate, key, NOW) == pair
    with pytest.raises(GatewayError, match="does not belong"):
        given_certificate(certificate, tmp_path / "b" / "gateway.key", NOW)
    with pytest.raises(GatewayError, match="only; renew it"):
        given_certificate(certificate, key, NOW + timedelta(days=400))
    with pytest.raises(GatewayError, match="cannot read"):
        given_certificate(tmp_path / "none.crt", key, NOW)
    with pytest.raises(GatewayError, match="in PEM"):
        given_certificate(key, certificate, NOW)
