"""Prometheus' configuration with this installation's addresses filled in."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from slipway.ports import Slot
from slipway.settings import Settings

__all__ = ["write_config", "write_targets"]


def _folder(settings: Settings) -> Path:
    return settings.home / "prometheus"


def write_config(settings: Settings) -> None:
    """Writes `prometheus.yml` below the home: the project's file with the embedded stack's addresses."""
    text = (settings.project_dir / "monitoring" / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    for default, actual in _addresses(settings).items():
        text = text.replace(f'"{default}"', f'"{actual}"')
    _folder(settings).mkdir(parents=True, exist_ok=True)
    (_folder(settings) / "prometheus.yml").write_text(text, encoding="utf-8")


def _addresses(settings: Settings) -> dict[str, str]:
    places = {
        9102: (settings.statsd_host, settings.statsd_metrics_port),
        9105: (settings.keeper_host, settings.keeper_metrics_port),
        9901: (settings.gateway_host, settings.envoy_admin_port),
        9090: (settings.prometheus_host, settings.prometheus_port),
    }
    return {f"127.0.0.1:{port}": f"{host or settings.host}:{actual}" for port, (host, actual) in places.items()}


def write_targets(settings: Settings, slots: Iterable[Slot]) -> None:
    """Tells Prometheus which bentos to scrape; the file is replaced whole, and only when it differs."""
    running = [slot for slot in slots if slot.running and slot.port]
    groups = [
        {"targets": [f"{slot.host}:{slot.port}"], "labels": {"model": slot.model, "slot": slot.slot}}
        for slot in sorted(running, key=lambda slot: (slot.model, slot.slot))
    ]
    target = _folder(settings) / "targets" / "bentos.json"
    text = json.dumps(groups, indent=1)
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)
