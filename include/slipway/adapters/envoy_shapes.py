"""Small pieces that Envoy's configuration is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["address", "file_source", "header", "typed"]

_TYPE = "type.googleapis.com/envoy."


def typed(kind: str, **values: Any) -> dict[str, Any]:
    return {"@type": _TYPE + kind, **values}


def address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


def header(key: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> dict[str, Any]:
    return {"header": {"key": key, "value": value}, "append_action": action}


def file_source(path: Path) -> dict[str, Any]:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}
