"""Prometheus' configuration with this installation's addresses filled in."""

from __future__ import annotations

from slipway.settings import Settings

__all__ = ["write_config"]


def write_config(settings: Settings) -> None:
    """Writes `prometheus.yml` below the home: the project's file with the embedded stack's addresses."""
    text = (settings.project_dir / "monitoring" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    for default, actual in _addresses(settings).items():
        text = text.replace(default, actual)
    folder = settings.home / "prometheus"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")


def _addresses(settings: Settings) -> dict[str, str]:
    defaults = {
        9102: settings.statsd_metrics_port,
        9105: settings.keeper_metrics_port,
        9901: settings.envoy_admin_port,
        9090: settings.prometheus_port,
        8000: settings.gateway_port,
    }
    return {f"127.0.0.1:{default}": f"{settings.host}:{port}" for default, port in defaults.items()}
