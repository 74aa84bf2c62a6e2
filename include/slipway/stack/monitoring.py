"""Which monitoring programs this machine has. None of them is needed; each that is there becomes part of the stack."""

from __future__ import annotations

import shutil

from slipway.settings import Settings
from slipway.stack.alertmanager import receivers

__all__ = ["alerting_line", "binary", "missing", "missing_line"]

# Debian puts the name of the family in front.
_NAMES = {"prometheus": ("prometheus",), "alertmanager": ("alertmanager", "prometheus-alertmanager")}


def binary(tool: str) -> str | None:
    """The path of `prometheus` or `alertmanager`; None when the machine has none."""
    return next((path for path in map(shutil.which, _NAMES[tool]) if path), None)


def missing() -> list[str]:
    """The tools that this machine lacks."""
    return [tool for tool in _NAMES if binary(tool) is None]


def missing_line() -> str:
    """What is not there and what that means; empty when nothing is missing."""
    match missing():
        case []:
            return ""
        case ["alertmanager"]:
            return "no alertmanager on this machine: alerts are seen in Prometheus only (docs/monitoring.md)"
        case tools:
            return f"no {' and no '.join(tools)} on this machine: metrics are not kept (docs/monitoring.md)"


def alerting_line(settings: Settings) -> str:
    """Who is told of alerts."""
    ways = receivers(settings)
    if not ways:
        return "nobody is told of alerts; set SLIPWAY_ALERT_WEBHOOK_URL or SLIPWAY_ALERT_MAIL_TO (docs/monitoring.md)"
    return f"alerts are sent by {' and '.join(ways)}"
