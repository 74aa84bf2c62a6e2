"""Realistic traffic through the gateway: rows like those the model was trained on, with drift and labels on demand.

Rows are drawn from the loader's data with replacement and given a jitter of a hundredth of each column's standard
deviation, so that they are fresh without being different. A shift is added to a feature after the draw while the label
stays, which is what happens when an instrument is replaced or a population changes. A text is sent as it was drawn; its
shift is the share of it, between 0 and 1, that is cut off at its end.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slipway.errors import DataError, GatewayError
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import httpx
    import pandas as pd

__all__ = ["Simulation", "cut_text", "parse_shifts", "simulate"]

_JITTER_SHARE = 0.01
_LABELS_PER_REQUEST = 500
_PROGRESS_SECONDS = 2.0


@dataclass
class Simulation:
    """What came of it. `statuses` counts HTTP statuses; `errors` counts requests that got no answer at all."""

    rows: int = 0
    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    labels: int = 0
    right: int = 0
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return self.statuses[200]

    @property
    def failed(self) -> int:
        return sum(self.statuses.values()) - self.answered + sum(self.errors.values())

    def percentile_ms(self, q: float) -> float:
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "answered": self.answered,
            "failed": self.failed,
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "errors": dict(self.errors),
            "versions": dict(self.versions),
            "labels": self.labels,
            "accuracy": self.right / self.answered if self.answered else None,
            "seconds": round(self.seconds, 3),
            "p50_ms": round(self.percentile_ms(0.5), 3),
            "p99_ms": round(self.percentile_ms(0.99), 3),
        }


def parse_shifts(spec: ModelSpec, shifts: Mapping[str, float]) -> dict[str, float]:
    """The shifts, checked against the spec.

    Raises:
        DataError: a name is no numeric or text feature of the model, or a text's shift is no share.
    """
    kinds = {feature.name: feature.kind for feature in spec.features if feature.kind != "category"}
    for name, shift in shifts.items():
        if name not in kinds:
            raise DataError(f"cannot shift {name!r}; features of {spec.name} that can be: {', '.join(kinds) or 'none'}")
        if kinds[name] == "text" and not 0 <= shift <= 1:
            raise DataError(f"a shift of {name!r} is the share of the text that is cut off, 0 to 1, not {shift:g}")
    return dict(shifts)


def cut_text(text: Any, share: float) -> Any:
    """A text without the last `share` of its characters; a missing one stays missing."""
    return text[: round(len(text) * (1 - share))] if isinstance(text, str) else text


def simulate(
    spec: ModelSpec,
    gateway_uri: str,
    *,
    rows: int,
    rate: float,
    shifts: Mapping[str, float] | None = None,
    labels: bool = False,
    seed: int | None = None,
    progress: Callable[[Simulation], None] | None = None,
    client: Mapping[str, Any] | None = None,
) -> Simulation:
    """Send `rows` single-row predictions at `rate` a second and, with `labels`, their true labels afterwards.

    Args:
        rate: requests per second, open loop: a slow answer does not slow the next request down.
        shifts: added to a feature, in its unit; of a text, the share that is cut off.
        seed: of the draw; None draws differently each time.
        progress: called about every two seconds.
        client: further arguments of the HTTP client, for example a key's header and the certificate to trust.

    Raises:
        DataError: a shift names no numeric or text feature.
        GatewayError: nothing answers at the gateway's address.
    """
    frame = _draw(spec, rows, parse_shifts(spec, shifts or {}), seed)
    return asyncio.run(_run(spec, frame, rate, labels, progress, {**(client or {}), "base_url": gateway_uri}))


def _draw(spec: ModelSpec, rows: int, shifts: Mapping[str, float], seed: int | None) -> pd.DataFrame:
    import numpy as np

    source: pd.DataFrame = spec.loader()
    random = np.random.default_rng(seed)
    frame = source.iloc[random.integers(0, len(source), rows)].reset_index(drop=True)
    for feature in spec.features:
        if feature.kind == "text":
            frame[feature.name] = [cut_text(text, shifts.get(feature.name, 0.0)) for text in frame[feature.name]]
        if feature.kind not in ("number", "integer"):
            continue
        column = frame[feature.name].astype(float)
        if feature.kind == "number":
            column = column + random.normal(0.0, _JITTER_SHARE * float(source[feature.name].std()), rows)
        column = (column + shifts.get(feature.name, 0.0)).clip(feature.minimum, feature.maximum)
        frame[feature.name] = column.round(6) if feature.kind == "number" else column.round()
    return frame


def _payloads(spec: ModelSpec, frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = frame[list(spec.feature_names)].astype(object)
    rows = columns.where(columns.notna(), None).to_dict(orient="records")
    records = [{str(name): value for name, value in row.items()} for row in rows]
    for feature in spec.features:
        if feature.kind == "integer":
            for record in records:
                record[feature.name] = None if record[feature.name] is None else int(record[feature.name])
    return records


async def _run(
    spec: ModelSpec,
    frame: pd.DataFrame,
    rate: float,
    labels: bool,
    progress: Callable[[Simulation], None] | None,
    options: Mapping[str, Any],
) -> Simulation:
    import httpx

    outcome = Simulation(rows=len(frame))
    truths = frame[spec.target.name].tolist()
    answered: list[tuple[str, Any]] = []
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    async with httpx.AsyncClient(**{"timeout": 30.0, "limits": limits, **options}) as client:
        try:
            await client.get("/health")
        except httpx.TransportError as error:
            raise GatewayError(f"no gateway answers at {options['base_url']}; start it with `slipway up`") from error

        async def send(record: dict[str, Any], truth: Any) -> None:
            began = time.perf_counter()
            try:
                answer = await client.post(f"/predict/{spec.name}", json=record)
            except httpx.TransportError as error:
                outcome.errors[type(error).__name__] += 1
                return
            outcome.latencies_ms.append((time.perf_counter() - began) * 1000)
            outcome.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                body = answer.json()
                outcome.versions[body["model_version"]] += 1
                outcome.right += body["prediction"] == truth
                answered.append((body["request_id"], truth))

        began = shown = time.perf_counter()
        tasks: set[asyncio.Task[None]] = set()
        for index, record in enumerate(_payloads(spec, frame)):
            delay = began + index / rate - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            task = asyncio.create_task(send(record, truths[index]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            if progress and time.perf_counter() - shown > _PROGRESS_SECONDS:
                shown = time.perf_counter()
                progress(outcome)
        await asyncio.gather(*tasks)
        outcome.seconds = time.perf_counter() - began
        if labels:
            await _send_labels(client, spec.name, answered, outcome)
    return outcome


async def _send_labels(
    client: httpx.AsyncClient, model: str, answered: list[tuple[str, Any]], outcome: Simulation
) -> None:
    for first in range(0, len(answered), _LABELS_PER_REQUEST):
        batch = answered[first : first + _LABELS_PER_REQUEST]
        body = [{"request_id": request_id, "label": truth} for request_id, truth in batch]
        answer = await client.post(f"/feedback/{model}", json=body)
        if answer.status_code != 202:
            raise GatewayError(f"/feedback/{model} answered {answer.status_code}: {answer.text[:200]}")
        outcome.labels += len(batch)
