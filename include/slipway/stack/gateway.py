"""The files Envoy starts from, written by the gateway adapter with the values of the settings."""

from __future__ import annotations

from slipway.settings import Settings

__all__ = ["write_bootstrap"]


def write_bootstrap(settings: Settings) -> None:
    """Writes Envoy's bootstrap file and, on a first start, dynamic files without routes."""
    from slipway.adapters import envoy

    envoy.write_bootstrap(
        settings.xds_dir,
        host=settings.host,
        gateway_port=settings.gateway_port,
        admin_port=settings.envoy_admin_port,
        control_host=settings.airflow_host or settings.host,
        control_port=settings.airflow_port,
        max_body_bytes=settings.max_body_bytes,
    )
