"""Ship the spool into the lake: each sealed segment becomes exactly one Parquet file.

The file's name is the segment's name, the file appears whole or not at all, and the segment is deleted
only afterwards. So a repeat after a crash at any point changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Protocol

from slipway.errors import DataError, SlipwayError

__all__ = ["LogLake", "SegmentSource", "ShipResult", "ship"]

_PREDICTION_TYPES = {
    "request_id": "string",
    "row": "int32",
    "ts": "timestamp",
    "version": "string",
    "slot": "string",
    "shadow": "bool",
    "latency_ms": "double",
}
_LABEL_TYPES = {"request_id": "string", "row": "int32"}
_FEATURE_TYPES = {"number": "double", "integer": "int64", "category": "string", "text": "string"}


class SegmentContent(Protocol):
    """A segment's header, its records and the bytes after the last whole record."""

    @property
    def header(self) -> Mapping[str, Any]: ...

    @property
    def records(self) -> Sequence[bytes]: ...

    @property
    def damaged(self) -> int: ...


class SegmentSource(Protocol):
    """Where segments come from: `slipway.adapters.spool.Spool`."""

    def exclusive(self) -> AbstractContextManager[bool]: ...

    def salvage(self) -> Sequence[Any]: ...

    def sealed(self) -> Sequence[Any]: ...

    def read(self, segment: Any) -> SegmentContent: ...

    def remove(self, segment: Any) -> None: ...

    def set_aside(self, segment: Any) -> Any: ...


class LogLake(Protocol):
    """Where they go: `slipway.adapters.lake.ParquetLake`."""

    def write_log(
        self,
        kind: str,
        model: str,
        day: date,
        name: str,
        columns: Mapping[str, Sequence[Any]],
        types: Mapping[str, str],
    ) -> bool: ...


@dataclass
class ShipResult:
    """What one pass did.

    Attributes:
        segments: segments that are in the lake now and were not finished before.
        rows, labels: prediction rows and labels by model in those segments.
        salvaged: segments of killed writers that were sealed first.
        problems: one line per segment that could not be shipped (it stays) or was damaged (it is set aside).
        busy: another shipper was at work and nothing was done.
    """

    segments: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    salvaged: int = 0
    problems: list[str] = field(default_factory=list)
    busy: bool = False


def ship(spool: SegmentSource, lake: LogLake, *, max_segments: int | None = None) -> ShipResult:
    """Bring every sealed segment into the lake, oldest first; one that fails does not hold up the others."""
    result = ShipResult()
    with spool.exclusive() as alone:
        if not alone:
            result.busy = True
            return result
        try:
            result.salvaged = len(spool.salvage())
        except OSError as error:
            result.problems.append(f"a killed writer's segment could not be sealed: {error}")
        for segment in list(spool.sealed())[:max_segments]:
            try:
                _ship_one(spool, lake, segment, result)
            except (SlipwayError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
                result.problems.append(f"{segment.kind}/{segment.model}/{segment.name}: {error}")
    return result


def _ship_one(spool: SegmentSource, lake: LogLake, segment: Any, result: ShipResult) -> None:
    try:
        content = spool.read(segment)
    except DataError as error:
        result.problems.append(f"{error}; the file is kept as {spool.set_aside(segment)}")
        return
    records = [_decode(payload) for payload in content.records]
    count = 0
    if records:
        columns, types, ts_us = (_prediction_columns if segment.kind == "predictions" else _label_columns)(
            content.header, records
        )
        day = datetime.fromtimestamp(ts_us // 1_000_000, UTC).date()
        lake.write_log(segment.kind, segment.model, day, segment.name, columns, types)
        count = len(columns["row"])
    if content.damaged:
        aside = spool.set_aside(segment)
        result.problems.append(
            f"{segment.kind}/{segment.model}/{segment.name}: {content.damaged} bytes after record"
            f" {len(records)} are unreadable; the records before are shipped, the file is kept as {aside}"
        )
    else:
        spool.remove(segment)
    result.segments += 1
    counts = result.rows if segment.kind == "predictions" else result.labels
    counts[segment.model] = counts.get(segment.model, 0) + count


def _decode(payload: bytes) -> Any:
    import msgspec

    return msgspec.msgpack.decode(payload)


def _prediction_columns(
    header: Mapping[str, Any], records: Sequence[Any]
) -> tuple[dict[str, list[Any]], dict[str, str], int]:
    """One entry per row; a record is one request with all its rows, in their order."""
    features = list(header["features"])
    columns: dict[str, list[Any]] = {name: [] for name in (*_PREDICTION_TYPES, "prediction", "probabilities")}
    rows: list[Sequence[Any]] = []
    for request_id, ts_us, latency_us, shadow, inputs, predictions, probabilities in records:
        count = len(inputs)
        columns["request_id"] += [str(uuid.UUID(bytes=request_id))] * count
        columns["row"] += range(count)
        columns["ts"] += [ts_us] * count
        columns["shadow"] += [shadow] * count
        columns["latency_ms"] += [latency_us / 1000] * count
        columns["prediction"] += predictions
        columns["probabilities"] += probabilities if probabilities is not None else [None] * count
        rows += inputs
    columns["version"] = [header["version"]] * len(rows)
    columns["slot"] = [header["slot"]] * len(rows)
    for index, name in enumerate(features):
        columns[name] = [row[index] for row in rows]
    kinds = dict(zip(features, header["feature_kinds"], strict=True))
    types = {
        **_PREDICTION_TYPES,
        "prediction": _target_type(header),
        "probabilities": "list<double>",
        **{name: _FEATURE_TYPES[kind] for name, kind in kinds.items()},
    }
    return columns, types, records[0][1]


def _label_columns(
    header: Mapping[str, Any], records: Sequence[Any]
) -> tuple[dict[str, list[Any]], dict[str, str], int]:
    columns: dict[str, list[Any]] = {
        "request_id": [str(uuid.UUID(bytes=record[0])) for record in records],
        "row": [record[1] for record in records],
        "label": [record[2] for record in records],
        "ts": [record[3] for record in records],
    }
    types = {**_LABEL_TYPES, "label": _target_type(header), "ts": "timestamp"}
    return columns, types, records[0][3]


def _target_type(header: Mapping[str, Any]) -> str:
    return "string" if header["task"] == "classification" else "double"
