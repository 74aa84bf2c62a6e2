"""Asks a slot on its own port, past the gateway; and the wall clock, which is an outside system too."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime

import httpx

from slipway.ports import Readiness

__all__ = ["HttpSlotProbe", "SystemClock"]


class SystemClock:
    """The time in UTC, and waiting for it to pass."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class HttpSlotProbe:
    """The slot probe over HTTP."""

    def __init__(self, host: str = "127.0.0.1", timeout_seconds: float = 3.0) -> None:
        self._host = host
        self._client = httpx.Client(timeout=timeout_seconds, trust_env=False)

    def ready(self, model: str, port: int) -> Readiness:
        """Whether the slot answers its golden rows; every call is a real inference.

        A slot that refuses the connection is not ready; one that does not answer in time could not be asked.
        """
        try:
            answer = self._client.get(f"http://{self._host}:{port}/readyz")
        except httpx.TimeoutException:
            return Readiness(None, "the slot did not answer in time")
        except httpx.HTTPError as error:
            return Readiness(False, f"the slot does not answer ({type(error).__name__})")
        if answer.status_code == httpx.codes.OK:
            return Readiness(True, "ready")
        return Readiness(False, _detail(answer))

    def port_is_free(self, port: int) -> bool:
        """Whether nobody listens on the port."""
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self._host, port))
            except OSError:
                return False
        return True

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json().get("detail")
    except (ValueError, AttributeError):
        detail = None
    return str(detail or f"the slot answers {answer.status_code}")
