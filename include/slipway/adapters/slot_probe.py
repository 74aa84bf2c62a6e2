"""Asks a slot at its own address, past the gateway; and the wall clock, which is an outside system too."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from slipway.adapters.plain_http import httpx, plain_client
from slipway.core.routes import Address
from slipway.core.slot_metrics import SlotMetrics
from slipway.errors import RuntimeSlotError
from slipway.ports import Readiness, SlotAnswer

__all__ = ["HttpSlotProbe", "SystemClock", "read_metrics"]

# A bento's reasons for a 4xx answer to a prediction request, without that of 429.
_REFUSALS = ("invalid", "malformed", "media_type", "method", "too_large")


class SystemClock:
    """The time in UTC, and waiting for it to pass."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class HttpSlotProbe:
    """The slot probe over HTTP; `host` is where ports are tried before a slot gets one."""

    def __init__(self, host: str = "127.0.0.1", timeout_seconds: float = 3.0) -> None:
        self._host = host
        self._client = plain_client(timeout=timeout_seconds)

    def ready(self, model: str, address: Address) -> Readiness:
        """Whether the slot answers its golden rows; every call is a real inference.

        A slot that refuses the connection is not ready; one that does not answer in time could not be asked.
        """
        try:
            answer = self._client.get(f"http://{address}/readyz")
        except httpx.TimeoutException:
            return Readiness(None, "the slot did not answer in time")
        except httpx.HTTPError as error:
            return Readiness(False, f"the slot does not answer ({type(error).__name__})", dead=True)
        if answer.status_code == httpx.codes.OK:
            told = answer.headers.get("x-model-version")
            return Readiness(True, "ready", {} if told is None else {"version": told})
        return Readiness(False, _detail(answer))

    def metrics(self, address: Address) -> SlotMetrics:
        """What the slot has counted since it started.

        Raises:
            RuntimeSlotError: it does not answer, or with something else.
        """
        try:
            answer = self._client.get(f"http://{address}/metrics")
            answer.raise_for_status()
            return read_metrics(answer.text)
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise RuntimeSlotError(f"the slot's metrics cannot be read ({type(error).__name__})") from error

    def predict(self, model: str, address: Address, body: Mapping[str, Any], request_id: str) -> SlotAnswer:
        """One prediction that is no traffic: it is logged as shadow and counted apart.

        Raises:
            RuntimeSlotError: the slot does not answer.
        """
        headers = {"x-slipway-shadow": "1", "x-request-id": request_id}
        began = time.perf_counter()
        try:
            answer = self._client.post(f"http://{address}/predict/{model}", json=body, headers=headers)
        except httpx.HTTPError as error:
            raise RuntimeSlotError(f"the slot does not answer ({type(error).__name__})") from error
        seconds = time.perf_counter() - began
        if answer.status_code != httpx.codes.OK:
            return SlotAnswer(answer.status_code, (), seconds * 1e3, _detail(answer))
        return SlotAnswer(answer.status_code, tuple(answer.json()["predictions"]), seconds * 1e3)

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


def read_metrics(text: str) -> SlotMetrics:
    """The counters in a bento's metrics page.

    Raises:
        KeyError, ValueError: a counter is missing, or is no number.
    """
    values: dict[str, float] = {}
    buckets: list[tuple[float, int]] = []
    failed: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        name, _, value = line.rpartition(" ")
        plain, _, labels = name.partition("{")
        if plain == "prediction_latency_seconds_bucket":
            buckets.append((float(labels.rpartition('le="')[2].partition('"')[0]), int(float(value))))
        elif plain == "prediction_errors_total":
            failed[labels.rpartition('reason="')[2].partition('"')[0]] = int(float(value))
        else:
            values[plain] = float(value)
    counts = [count for _, count in buckets]
    return SlotMetrics(
        started_at=values["process_start_time_seconds"],
        requests=int(values["prediction_requests_total"]),
        rejected=failed.get("overload", 0),
        refused=sum(failed.get(reason, 0) for reason in _REFUSALS),
        in_flight=int(values["prediction_in_flight"]),
        shadow_requests=int(values["prediction_shadow_requests_total"]),
        shadow_errors=int(values["prediction_shadow_errors_total"]),
        shadow_refused=int(values.get("prediction_shadow_refused_total", 0)),  # former bentos have none
        bounds=tuple(bound for bound, _ in buckets if bound != float("inf")),
        latency=tuple(now - before for before, now in zip([0, *counts], counts, strict=False)),
    )
