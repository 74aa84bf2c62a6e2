"""Finds one request in the prediction log: in the lake, or in the spool when it is not shipped yet."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from slipway.adapters.files import FileStore
from slipway.adapters.log_files import LogFiles, again
from slipway.adapters.spool import Spool
from slipway.errors import DataError

__all__ = ["LogSearch"]

_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})$")
_QUERY = """
    SELECT version, slot, shadow, min(ts) AS at, max(latency_ms) AS latency_ms, count(*) AS rows,
        list(CAST(prediction AS VARCHAR) ORDER BY row)[1:5] AS predictions
    FROM log WHERE request_id = $id GROUP BY version, slot, shadow
"""
_CLOCKS_APART = timedelta(days=1)


class LogSearch:
    """Looks through predictions of all models; an id of ours says its date, any other is looked for newest first."""

    def __init__(self, url: str, spool: Spool) -> None:
        self._files = FileStore(url)
        self._log = LogFiles(self._files)
        self._spool = spool

    def find(self, request_id: str) -> list[dict[str, Any]]:
        """Every answer under this id: model, version, slot, shadow, at, latency_ms, rows, up to 5 predictions, where.

        Raises:
            DataError: it is no UUID.
        """
        try:
            wanted = uuid.UUID(request_id)
        except ValueError:
            raise DataError(f"{request_id!r} is no request id; it is the x-request-id of an answer, a UUID") from None
        # First the spool: what is shipped in between is then found in the lake, never in neither.
        waiting = self._in_spool(wanted)
        return self._in_lake(wanted) or waiting

    def _in_lake(self, wanted: uuid.UUID) -> list[dict[str, Any]]:
        near = _date_of(wanted)
        for day, folders in sorted(self._folders().items(), reverse=True):
            if near is not None and abs(day - near) > _CLOCKS_APART:
                continue
            found = [row for folder in folders for row in again(lambda f=folder: self._ask(f, wanted))]  # type: ignore[misc]
            if found:
                return found
        return []

    def _folders(self) -> dict[date, list[str]]:
        found: dict[date, list[str]] = {}
        for model in self._files.list("predictions"):
            for folder in self._files.list(model):
                if match := _DATE.search(folder):
                    found.setdefault(date.fromisoformat(match[1]), []).append(folder)
        return found

    def _ask(self, folder: str, wanted: uuid.UUID) -> list[dict[str, Any]]:
        paths = self._log.visible(folder)
        if not paths:
            return []
        model = folder.split("/")[1].removeprefix("model=")
        rows: Sequence[Mapping[str, Any]] = self._files.query(_QUERY, paths, {"id": str(wanted)}).to_pylist()
        return [{"model": model, **row, "at": row["at"].astimezone(UTC), "where": "lake"} for row in rows]

    def _in_spool(self, wanted: uuid.UUID) -> list[dict[str, Any]]:
        found = []
        for model, header, record in self._spool.records("predictions"):
            if record[0] != wanted.bytes:
                continue
            _, ts_us, latency_us, shadow, rows, predictions, _ = record
            found.append(
                {
                    "model": model,
                    "version": str(header["version"]),
                    "slot": str(header["slot"]),
                    "shadow": bool(shadow),
                    "at": datetime.fromtimestamp(ts_us / 1_000_000, UTC),
                    "latency_ms": latency_us / 1000,
                    "rows": len(rows),
                    "predictions": [str(one) for one in predictions[:5]],
                    "where": "spool",
                }
            )
        return found


def _date_of(wanted: uuid.UUID) -> date | None:
    """The date in an id of version 7; its first 48 bits are milliseconds since 1970."""
    if wanted.version != 7:
        return None
    try:
        return datetime.fromtimestamp((wanted.int >> 80) / 1000, UTC).date()
    except (ValueError, OverflowError, OSError):
        return None
