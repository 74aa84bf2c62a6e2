"""The files Envoy starts from and goes by, written by the gateway adapter with the values of the settings."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from slipway.errors import SpecError, StackError
from slipway.settings import Settings

if TYPE_CHECKING:
    from slipway.core.edge import Edge, RateLimit

__all__ = [
    "GATEWAY_HEADER",
    "STDOUT",
    "access_log",
    "edge",
    "refresh_certificate",
    "trusted_certificate",
    "write_bootstrap",
]

GATEWAY_HEADER = "x-slipway-gateway"  # by it the control API knows what the gateway shows to everybody
STDOUT = Path("/dev/stdout")


def access_log(settings: Settings) -> Path | None:
    """Where the access log is written to; None for nowhere."""
    if settings.access_log == "file" and settings.runtime == "docker":
        return STDOUT  # the gateway's container has no disk; Docker keeps what it writes
    places = {"off": None, "file": settings.log_dir / "access.log", "stdout": STDOUT}
    return places[settings.access_log]


def edge(settings: Settings) -> Edge:
    """The gateway's options.

    Raises:
        StackError: a setting cannot be used; the message names it.
    """
    from slipway.core.edge import Edge, parse_rate_limits

    def limits(name: str) -> tuple[RateLimit, ...]:
        try:
            return parse_rate_limits(getattr(settings, name))
        except SpecError as error:
            raise StackError(f"SLIPWAY_{name.upper()}: {error}") from error

    return Edge(
        tls=settings.tls != "off",
        need_key=settings.predictions_need_key,
        limits=limits("rate_limits"),
        key_limits=limits("key_rate_limits"),
        gzip_min_bytes=settings.gzip_min_bytes,
        security_headers=settings.security_headers,
        access_log=access_log(settings),
    )


def _certificate(settings: Settings) -> tuple[str, str]:
    """The gateway's certificate with its chain, and its key, in PEM; a generated one is made or renewed when due.

    Raises:
        StackError: the settings name no files.
        GatewayError: the files cannot be used.
    """
    from slipway.adapters import certificate as adapter

    now = datetime.now(UTC)
    if settings.tls == "files":
        if settings.tls_cert is None or settings.tls_key is None:
            raise StackError("SLIPWAY_TLS=files needs SLIPWAY_TLS_CERT and SLIPWAY_TLS_KEY")
        return adapter.given_certificate(settings.tls_cert, settings.tls_key, now)
    further = [name.strip() for name in settings.tls_names.split(",") if name.strip()]
    # Nothing that differs from one process to the next, or each would make the other's certificate anew.
    return adapter.generated_certificate(settings.home / "tls", ["localhost", "127.0.0.1", "::1", *further], now)


def trusted_certificate(settings: Settings) -> str:
    """The certificate that our own commands expect of the gateway, in PEM; nothing is made or renewed.

    Raises:
        StackError: there is none.
    """
    path = settings.tls_cert if settings.tls == "files" else settings.home / "tls" / "gateway.crt"
    try:
        return (path or Path("SLIPWAY_TLS_CERT")).read_text(encoding="utf-8")
    except OSError as error:
        raise StackError(f"no certificate at {path} ({error.strerror}); `slipway up` makes or checks it") from error


def refresh_certificate(settings: Settings) -> bool:
    """Give Envoy the certificate that is good now; True when it is another one than before."""
    from slipway.adapters.envoy import publish_certificate

    return settings.tls != "off" and publish_certificate(settings.xds_dir, *_certificate(settings))


def write_bootstrap(settings: Settings) -> None:
    """Writes Envoy's bootstrap file and, on a first start, dynamic files without routes.

    Until the keeper has read the records of the keys, those of the last run go on to hold; on a first start the
    control key alone does.

    Raises:
        StackError: a setting cannot be used; the message names it.
        GatewayError: the certificate cannot be used.
    """
    from slipway.adapters import envoy
    from slipway.core.keys import main_key

    options = edge(settings)
    envoy.write_bootstrap(
        settings.xds_dir,
        host=settings.host,
        gateway_port=settings.gateway_port,
        admin_port=settings.envoy_admin_port,
        control_host=settings.airflow_host or settings.host,
        control_port=settings.airflow_port,
        max_body_bytes=settings.max_body_bytes,
        edge=options,
        control_headers={GATEWAY_HEADER: settings.gateway_token},
    )
    refresh_certificate(settings)
    if options.reads_keys and not envoy.keys_are_published(settings.xds_dir, needed=options.need_key):
        own = main_key(settings.secret("control_key"))
        envoy.publish_keys(settings.xds_dir, [own], needed=options.need_key)
