"""Whether a program of the stack answers. A probe never raises: what does not answer is not ready."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime
from typing import Any

__all__ = ["accepts", "airflow_beats", "answers", "fetch_json"]

TIMEOUT_SECONDS = 3.0
# A proxy of the user's environment must not stand between the stack and its own machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _fetch(url: str) -> bytes | None:
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        with _OPENER.open(url, timeout=TIMEOUT_SECONDS) as response:
            return bytes(response.read())
    return None


def answers(url: str) -> bool:
    """Whether a GET is answered with a 2xx status."""
    return _fetch(url) is not None


def fetch_json(url: str) -> Any:
    """The JSON body of a GET, or None."""
    body = _fetch(url)
    try:
        return None if body is None else json.loads(body)
    except ValueError:
        return None


def accepts(url: str) -> bool:
    """Whether the address of a URL takes TCP connections."""
    parts = urllib.parse.urlsplit(url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), TIMEOUT_SECONDS).close()
    except OSError:
        return False
    return True


def airflow_beats(airflow_uri: str, component: str, started: float) -> bool:
    """Whether a component has reported to Airflow since its process started.

    A heartbeat of the process before it counts as healthy for a while, hence the comparison.

    Args:
        component: `scheduler`, `dag_processor` or `triggerer`.
        started: Unix time at which the component's process was started.
    """
    health = fetch_json(f"{airflow_uri}/api/v2/monitor/health") or {}
    report = health.get(component) or {}
    beat = report.get(f"latest_{component}_heartbeat")
    if report.get("status") != "healthy" or not beat:
        return False
    return datetime.fromisoformat(beat.replace("Z", "+00:00")).timestamp() >= started - 1
