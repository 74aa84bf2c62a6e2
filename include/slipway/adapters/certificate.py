"""The gateway's certificate: one that was given, or one of our own that is renewed before it expires."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from slipway.adapters.whole_file import write_whole
from slipway.errors import GatewayError

__all__ = ["expires_at", "generated_certificate", "given_certificate", "trust_exactly"]

LIFETIME = timedelta(days=397)  # the longest that browsers take
RENEW_BEFORE = timedelta(days=30)
_CLOCKS_DIFFER = timedelta(hours=1)


def generated_certificate(folder: Path, names: Sequence[str], now: datetime) -> tuple[str, str]:
    """A self-signed certificate and its key in PEM, made unless the folder holds one that is good for a while.

    Args:
        names: host names and addresses that it is for; a further one makes another certificate.

    Returns:
        The contents of `gateway.crt` and of `gateway.key` (mode 0600).
    """
    certificate, key = folder / "gateway.crt", folder / "gateway.key"
    if _still_good(certificate, key, names, now):
        return certificate.read_text(), key.read_text()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    chain_pem, key_pem = _self_signed(names, now)
    # The key first: a certificate is believed only together with the key that fits it.
    write_whole(key, key_pem, 0o600)
    write_whole(certificate, chain_pem, 0o644)
    return chain_pem, key_pem


def given_certificate(certificate: Path, key: Path, now: datetime) -> tuple[str, str]:
    """A certificate chain and its key from files of the user's own.

    Raises:
        GatewayError: a file cannot be read, is no PEM, does not fit the other, or the certificate is not valid now.
    """
    try:
        chain_pem, key_pem = certificate.read_text(), key.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise GatewayError(f"cannot read the gateway's certificate or key: {error}; see SLIPWAY_TLS_CERT") from error
    try:
        leaf = x509.load_pem_x509_certificate(chain_pem.encode())
        private = serialization.load_pem_private_key(key_pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        what = f"{certificate} and {key}"
        raise GatewayError(f"{what} are not a certificate and an unencrypted key in PEM: {error}") from error
    if private.public_key() != leaf.public_key():
        raise GatewayError(f"the key in {key} does not belong to the certificate in {certificate}")
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        span = f"{leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}"
        raise GatewayError(f"the certificate in {certificate} is valid from {span} only; renew it")
    return chain_pem, key_pem


def expires_at(chain_pem: str) -> datetime:
    """The end of the first certificate's validity."""
    return x509.load_pem_x509_certificate(chain_pem.encode()).not_valid_after_utc


def trust_exactly(chain_pem: str) -> ssl.SSLContext:
    """A client's context that believes this one certificate and no other, by whatever name the gateway is called."""
    leaf = x509.load_pem_x509_certificate(chain_pem.encode()).public_bytes(serialization.Encoding.PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is the anchor, also a CA's
    context.load_verify_locations(cadata=leaf.decode())
    return context


def _still_good(certificate: Path, key: Path, names: Sequence[str], now: datetime) -> bool:
    try:
        leaf = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError):
        return False
    named = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    fits = private.public_key() == leaf.public_key() and set(_alternatives(names)) <= set(named)
    return fits and leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc - RENEW_BEFORE


def _alternatives(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found


def _self_signed(names: Sequence[str], now: datetime) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Slipway gateway")])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _CLOCKS_DIFFER)
        .not_valid_after(now.astimezone(UTC) + LIFETIME)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
