"""The files Envoy starts from, written by the gateway adapter with the values of the settings."""

from __future__ import annotations

from slipway.settings import Settings

__all__ = ["GATEWAY_HEADER", "write_bootstrap"]

GATEWAY_HEADER = "x-slipway-gateway"  # by it the control API knows what the gateway shows to everybody


def write_bootstrap(settings: Settings) -> None:
    """Writes Envoy's bootstrap file and, on a first start, dynamic files without routes."""
    from slipway.adapters import envoy

    envoy.write_bootstrap(
        settings.xds_dir,
        host=settings.host,
        gateway_port=settings.gateway_port,
        admin_port=settings.envoy_admin_port,
        control_host=settings.host,
        control_port=settings.airflow_port,
        max_body_bytes=settings.max_body_bytes,
        control_headers={GATEWAY_HEADER: settings.gateway_token},
    )
