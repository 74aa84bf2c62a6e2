"""What was answered, as the lake keeps it: one small file per bento process and date, and the coverage found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from slipway.adapters.files import FileStore
from slipway.adapters.tally import COUNTERS, TallyFile

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LogAccounts"]

_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})$")
_HOUR = timedelta(hours=1)


class LogAccounts:
    """`counts/model=…/date=…/<tally>.parquet` and `coverage/model=…/date=…/coverage.parquet`."""

    def __init__(self, url: str) -> None:
        self._files = FileStore(url)

    def keep(self, tally: TallyFile) -> None:
        """Store the counts of a closed tally; storing them twice is storing them once."""
        import pyarrow as pa

        hours = [_start(tally) + one.hour * _HOUR for one in tally.hours]
        columns: dict[str, Any] = {
            "tally": pa.array([tally.name] * len(hours), pa.string()),
            "version": pa.array([tally.version] * len(hours), pa.string()),
            "slot": pa.array([tally.slot] * len(hours), pa.string()),
            "hour": pa.array(hours, pa.timestamp("us", "UTC")),
        }
        for name in COUNTERS:
            columns[name] = pa.array([one.counts[name] for one in tally.hours], pa.int64())
        path = f"counts/model={tally.model}/date={tally.date.isoformat()}/{tally.name}.parquet"
        self._write(path, pa.table(columns))

    def counts(
        self, model: str, start: datetime, end: datetime, live: Sequence[TallyFile] = ()
    ) -> dict[datetime, dict[str, int]]:
        """The counters of each hour that begins in `start <= hour < end`, over all processes.

        Args:
            live: tallies that are still in the spool; whether they are in the lake as well does not matter.
        """
        result: dict[datetime, dict[str, int]] = {}
        for tally in live:
            if tally.model == model:
                for one in tally.hours:
                    _add(result, _start(tally) + one.hour * _HOUR, one.counts)
        sums = ", ".join(f"CAST(sum({name}) AS BIGINT) AS {name}" for name in COUNTERS)
        query = f"SELECT hour, {sums} FROM log WHERE NOT list_contains($live, tally) GROUP BY hour"  # noqa: S608
        paths = self._paths("counts", model, start, end)
        if paths:
            table = self._files.query(query, paths, {"live": [tally.name for tally in live]})
            for row in table.to_pylist():
                _add(result, row.pop("hour").astimezone(UTC), row)
        return {hour: counts for hour, counts in sorted(result.items()) if start <= hour < end}

    def write_coverage(self, model: str, day: date, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace the coverage of a date: one row per hour."""
        import pyarrow as pa

        whole = ("answered", "logged", "missing", "lost", "refused", "requests", "shadow", "labels")
        fields = [("hour", pa.timestamp("us", "UTC")), *((name, pa.int64()) for name in whole)]
        fields += [("coverage", pa.float64()), ("settled", pa.bool_())]
        table = pa.Table.from_pylist([dict(row) for row in rows], pa.schema(fields))
        self._write(f"coverage/model={model}/date={day.isoformat()}/coverage.parquet", table)

    def coverage(self, model: str, start: datetime, end: datetime) -> list[dict[str, Any]]:
        """What was found for the hours that begin in `start <= hour < end`, oldest first."""
        paths = self._paths("coverage", model, start, end)
        if not paths:
            return []
        query = "SELECT * FROM log WHERE hour >= $start AND hour < $end ORDER BY hour"
        rows: list[dict[str, Any]] = self._files.query(query, paths, {"start": start, "end": end}).to_pylist()
        return rows

    def _paths(self, kind: str, model: str, start: datetime, end: datetime) -> list[str]:
        first, last = start.astimezone(UTC).date(), end.astimezone(UTC).date()
        paths: list[str] = []
        for folder in self._files.list(f"{kind}/model={model}"):
            match = _DATE.search(folder)
            if match and first <= date.fromisoformat(match[1]) <= last:
                names = self._files.list(folder)
                paths += [path for path in names if path.endswith(".parquet") and "/." not in path]
        return sorted(paths)

    def _write(self, path: str, table: pa.Table) -> None:
        import pyarrow.parquet as pq

        with self._files.writing(path) as aside:
            pq.write_table(table, aside, compression="zstd")


def _start(tally: TallyFile) -> datetime:
    return datetime(tally.date.year, tally.date.month, tally.date.day, tzinfo=UTC)


def _add(result: dict[datetime, dict[str, int]], hour: datetime, counts: Mapping[str, int]) -> None:
    known = result.setdefault(hour, dict.fromkeys(COUNTERS, 0))
    for name in COUNTERS:
        known[name] += counts[name]
