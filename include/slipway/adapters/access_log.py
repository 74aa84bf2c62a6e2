"""Turns the gateway's access log over to a new file when it has grown; Envoy does not do so itself."""

from __future__ import annotations

from pathlib import Path

from slipway.adapters.plain_http import httpx
from slipway.errors import GatewayError

__all__ = ["rotate_access_log"]


def rotate_access_log(log: Path, max_bytes: int, files: int, admin_uri: str) -> bool:
    """Rename `access.log` to `access.log.1` and so on when it is larger than `max_bytes`; True when it was.

    Args:
        files: how many old ones stay.

    Raises:
        GatewayError: Envoy does not answer. It writes on into the renamed file; the next round asks again.
    """
    try:
        if log.stat().st_size <= max_bytes:
            return False
        _move(log, files)
    except FileNotFoundError:
        pass  # renamed by a round that Envoy did not answer, or never opened: ask it now
    try:
        httpx.post(f"{admin_uri}/reopen_logs", timeout=5, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise GatewayError(f"Envoy did not open a new access log ({type(error).__name__}); is it running?") from error
    return True


def _move(log: Path, files: int) -> None:
    for number in range(files, 0, -1):
        older, newer = _numbered(log, number), _numbered(log, number - 1)
        if newer.exists():
            newer.replace(older)
    if not files:
        log.unlink()


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}") if number else log
