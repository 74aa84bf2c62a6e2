"""Prometheus' configuration and rules, with this installation's addresses beside them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from slipway.errors import StackError
from slipway.ports import Slot
from slipway.settings import Settings
from slipway.stack.monitoring import binary

__all__ = ["write_config", "write_targets"]


def _folder(settings: Settings) -> Path:
    return settings.home / "prometheus"


def write_config(settings: Settings) -> None:
    """Writes below the home what Prometheus starts from: the project's configuration and rules, and the addresses.

    Raises:
        StackError: `scrape_also` is not understood.
    """
    source, folder = settings.project_dir / "monitoring" / "prometheus", _folder(settings)
    rules = {f"rules/{path.name}": path for path in sorted((source / "rules").glob("*.yml"))}
    (folder / "rules").mkdir(parents=True, exist_ok=True)
    for name, path in {"prometheus.yml": source / "prometheus.yml", **rules}.items():
        _replace(folder / name, path.read_text(encoding="utf-8"))
    for old in (folder / "rules").glob("*.yml"):
        if f"rules/{old.name}" not in rules:
            old.unlink()
    _replace(folder / "services.json", json.dumps(_services(settings), indent=1))


def _services(settings: Settings) -> list[dict[str, Any]]:
    """Everything but the bentos that is scraped, and Alertmanager; each named by the label `job`."""
    places = {
        "keeper": (settings.keeper_host, settings.keeper_metrics_port),
        "envoy": (settings.gateway_host, settings.envoy_admin_port),
        "airflow": (settings.statsd_host, settings.statsd_metrics_port),
        "prometheus": (settings.prometheus_host, settings.prometheus_port),
    }
    if binary("alertmanager") or settings.alertmanager_host:
        places["alertmanager"] = (settings.alertmanager_host, settings.alertmanager_port)
    addresses = {job: f"{host or settings.host}:{port}" for job, (host, port) in places.items()}
    groups = [{"targets": [address], "labels": {"job": job}} for job, address in (addresses | _also(settings)).items()]
    for group in groups:
        if group["labels"] == {"job": "envoy"}:
            group["labels"] = {"job": "envoy", "__metrics_path__": "/stats/prometheus"}
    return groups


def _also(settings: Settings) -> dict[str, str]:
    pairs = [pair.strip() for pair in (settings.scrape_also or "").split(",") if pair.strip()]
    found = {job.strip(): address.strip() for job, _, address in (pair.partition("=") for pair in pairs)}
    for job, address in found.items():
        if not job or not re.fullmatch(r"[^\s:/]+:\d+", address):
            raise StackError(f"SLIPWAY_SCRAPE_ALSO: {job}={address}; write it like node=127.0.0.1:9100")
    return found


def _replace(target: Path, text: str) -> None:
    """Whole, and only when it differs: Prometheus reads some of these files at any moment."""
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(target)


def write_targets(settings: Settings, slots: Iterable[Slot]) -> None:
    """Tells Prometheus which bentos to scrape; the file is replaced whole, and only when it differs."""
    running = [slot for slot in slots if slot.running and slot.port]
    groups = [
        {"targets": [f"{slot.host}:{slot.port}"], "labels": {"model": slot.model, "slot": slot.slot}}
        for slot in sorted(running, key=lambda slot: (slot.model, slot.slot))
    ]
    _replace(_folder(settings) / "targets" / "bentos.json", json.dumps(groups, indent=1))
