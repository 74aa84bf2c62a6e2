"""The Parquet lake below one fsspec URL: written with PyArrow, read with DuckDB.

Every file is immutable, appears whole and has a name that says what it holds, so writing twice is
writing once. Readers list the files first and read exactly those; files that appear meanwhile belong to
the next reader. How files of the log become fewer while they are read: `slipway.adapters.log_files`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from slipway.adapters.files import FileStore
from slipway.adapters.log_files import LogFiles, again
from slipway.errors import ArtefactError, DataError, NotFoundError
from slipway.ports import Snapshot

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["ParquetLake"]

_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})$")
_PREDICTIONS = (
    ("request_id", "string"),
    ("row", "int32"),
    ("ts", "timestamp"),
    ("version", "string"),
    ("slot", "string"),
    ("shadow", "bool"),
    ("latency_ms", "double"),
    ("prediction", "string"),
    ("probabilities", "list<double>"),
)
_LABELS = (("request_id", "string"), ("row", "int32"), ("label", "string"), ("ts", "timestamp"))
_HASH = "hash(request_id || ':' || row)"
# Only rows of a low hash are sorted; of them the lowest are taken.
_DRAWN = f"AND {_HASH} <= $highest QUALIFY row_number() OVER (ORDER BY {_HASH}, request_id, row) <= $most"
_FEATURE_TYPES = {"number": "double", "integer": "int64", "category": "string", "text": "string"}

Features = Callable[[str], Mapping[str, str]]
"""Model name to its features' kinds by name; only asked when a model has no log yet."""


class ParquetLake:
    """The port `Lake`, and where the keeper ships to.

    Args:
        url: a local path or any fsspec URL.
        features: gives empty frames the model's feature columns; without it they have the fixed columns only.
    """

    def __init__(self, url: str, features: Features | None = None) -> None:
        self._files = FileStore(url)
        self._log_store = LogFiles(self._files)
        self._features = features

    # -- the log ---------------------------------------------------------------------------------

    def write_log(
        self,
        kind: str,
        model: str,
        day: date,
        name: str,
        columns: Mapping[str, Sequence[Any]],
        types: Mapping[str, str],
    ) -> bool:
        """Write one segment's rows; False if they are there already.

        Raises:
            DataError: a value does not fit its column.
        """
        import pyarrow as pa

        folder = f"{kind}/model={model}/date={day.isoformat()}"
        if again(lambda: self._log_store.holds(folder, name)):
            return False
        try:
            table = pa.table(
                {column: pa.array(values, _arrow_type(types[column])) for column, values in columns.items()}
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{kind} of {model}, segment {name}: {error}") from error
        self._files.write(f"{folder}/{name}.parquet", _parquet(table))
        return True

    def predictions(
        self, model: str, start: datetime, end: datetime, *, shadow: bool = False, limit: int | None = None
    ) -> pd.DataFrame:
        """Logged rows with `start <= ts < end`, ordered by time, request and row.

        Columns: request_id, row, ts (UTC), version, slot, shadow, latency_ms, prediction, probabilities and one per
        feature; all of them also when there are no rows.

        Args:
            limit: at most so many rows, drawn by the hash of request id and row: the same log gives the same rows.

        Raises:
            DataError: a time without a zone.
        """
        parameters: dict[str, Any] = {"shadow": shadow}
        drawn = ""
        if limit is not None:
            total = self.count_predictions(model, start, end, shadow=shadow)
            if total > limit:
                parameters |= {"highest": _highest_hash(limit, total), "most": limit}
                drawn = _DRAWN
        query = f"""
            SELECT * FROM (
                SELECT * FROM log WHERE ts >= $start AND ts < $end AND shadow = $shadow {drawn}
            ) ORDER BY ts, request_id, row
        """  # noqa: S608 - what varies is a constant of this file
        table = self._query("predictions", model, start, end, query, **parameters)
        if table is None:
            table = self._empty_predictions(model)
        return _frame(table)

    def labelled_predictions(
        self, model: str, start: datetime, end: datetime, *, labels_from: datetime, limit: int
    ) -> pd.DataFrame:
        """`predictions` of the window that have a label, with the last one given since `labels_from` as `label`.

        At most `limit` rows, drawn by the hash of request id and row.

        Raises:
            DataError: a time without a zone.
        """
        given = self.labels(model, labels_from, None)[["request_id", "row", "label"]]
        query = f"""
            SELECT log.*, given.label FROM log JOIN given ON log.request_id = given.request_id AND log.row = given.row
            WHERE log.ts >= $start AND log.ts < $end AND NOT log.shadow
            QUALIFY row_number() OVER (ORDER BY {_HASH}, log.request_id, log.row) <= $most
            ORDER BY log.ts, log.request_id, log.row
        """.replace("request_id || ':' || row", "log.request_id || ':' || log.row")  # noqa: S608
        table = None
        if len(given):
            table = self._query("predictions", model, start, end, query, beside={"given": given}, most=limit)
        if table is None:
            frame = _frame(self._empty_predictions(model))
            return frame.assign(label=frame["request_id"])
        return _frame(table)

    def answers(
        self, model: str, start: datetime, end: datetime, *, shadow: bool = False, limit: int = 20_000
    ) -> pd.DataFrame:
        """What every version answered in a window, without the features: of each at most `limit` rows, by chance.

        Chance is the request id's hash, so that a mirrored request is in both samples or in none.

        Raises:
            DataError: a time without a zone.
        """
        query = """
            SELECT request_id, row, ts, version, latency_ms, prediction FROM log
            WHERE ts >= $start AND ts < $end AND shadow = $shadow
            QUALIFY row_number() OVER (PARTITION BY version ORDER BY hash(request_id), row) <= $most
        """
        table = self._query("predictions", model, start, end, query, shadow=shadow, most=limit)
        names = ["request_id", "row", "ts", "version", "latency_ms", "prediction"]
        return _frame(table if table is not None else self._empty_predictions(model).select(names))

    def count_predictions(self, model: str, start: datetime, end: datetime, *, shadow: bool = False) -> int:
        """How many rows `predictions` would return; reads two columns only.

        Raises:
            DataError: a time without a zone.
        """
        query = "SELECT count(*) AS rows FROM log WHERE ts >= $start AND ts < $end AND shadow = $shadow"
        table = self._query("predictions", model, start, end, query, shadow=shadow)
        return 0 if table is None else int(table.column("rows")[0].as_py())

    def logged_by_hour(self, model: str, start: datetime, end: datetime) -> dict[datetime, int]:
        """Logged rows without shadow ones, by the hour of their time; hours without any are left out.

        Raises:
            DataError: a time without a zone.
        """
        query = """
            SELECT date_trunc('hour', ts) AS hour, count(*) AS rows FROM log
            WHERE ts >= $start AND ts < $end AND NOT shadow GROUP BY hour
        """
        table = self._query("predictions", model, start, end, query)
        return {} if table is None else {row["hour"].astimezone(UTC): row["rows"] for row in table.to_pylist()}

    def labels(self, model: str, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        """Labels given in `start <= ts < end`: request_id, row, label, ts; of one given twice the last.

        Raises:
            DataError: a time without a zone.
        """
        query = """
            SELECT request_id, row, label, ts FROM log WHERE ts >= $start AND ts < $end
            QUALIFY 1 = row_number() OVER (
                PARTITION BY request_id, row ORDER BY ts DESC, filename DESC, file_row_number DESC
            )
            ORDER BY ts, request_id, row
        """
        first = start or datetime(1970, 1, 1, tzinfo=UTC)
        last = end or datetime(9999, 1, 1, tzinfo=UTC)
        table = self._query("labels", model, first, last, query)
        return _frame(table if table is not None else _empty(_LABELS))

    def _query(
        self,
        kind: str,
        model: str,
        start: datetime,
        end: datetime,
        query: str,
        beside: Mapping[str, pd.DataFrame] | None = None,
        **parameters: Any,
    ) -> pa.Table | None:
        """Run a query over `log`, the files of the dates that the window touches; None if there are none."""
        if start.tzinfo is None or end.tzinfo is None:
            raise DataError("the window's start and end need a time zone; use UTC")
        values = {"start": start.astimezone(UTC), "end": end.astimezone(UTC), **parameters}
        first, last = start.astimezone(UTC), end.astimezone(UTC)

        def read() -> pa.Table | None:
            paths = self._log_files(kind, model, first, last)
            if not paths:
                return None
            return self._files.query(query, paths, values, provenance=kind == "labels", beside=beside)

        return again(read)

    def _log_files(self, kind: str, model: str, start: datetime, end: datetime) -> list[str]:
        if not start < end:
            return []
        first, last = start.date(), (end - timedelta(microseconds=1)).date()
        files: list[str] = []
        for folder in self._files.list(f"{kind}/model={model}"):
            match = _DATE.search(folder)
            if match and first <= (day := date.fromisoformat(match[1])) <= last:
                whole = first < day < last
                files += self._log_store.visible(folder) if whole else self._log_store.touching(folder, start, end)
        return sorted(files)

    def _empty_predictions(self, model: str) -> pa.Table:
        """An empty table in the columns of the model's newest file, else in those of its declared features."""

        def newest() -> pa.Table | None:
            for folder in sorted(self._files.list(f"predictions/model={model}"), reverse=True):
                if files := self._log_store.visible(folder):
                    return self._files.schema(files[-1]).empty_table()
            return None

        found = again(newest)
        if found is not None:
            return found
        features = self._features(model) if self._features is not None else {}
        return _empty((*_PREDICTIONS, *((name, _FEATURE_TYPES[kind]) for name, kind in features.items())))

    # -- data sets -------------------------------------------------------------------------------

    def write_snapshot(self, model: str, frame: pd.DataFrame, source: Literal["loader", "retrain"]) -> Snapshot:
        """Keep a data set under the SHA-256 of its content; one that is there already is returned as it is.

        Raises:
            DataError: a column holds values of several types.
        """
        import pyarrow as pa

        from slipway.adapters.fingerprint import table_sha256

        try:
            table = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{model}: the data set cannot be stored: {error.args[-1]}: {error.args[0]}") from error
        sha256 = table_sha256(table)
        path = _snapshot_path(model, sha256)
        if not self._files.exists(path):
            own = {b"slipway.source": source.encode(), b"slipway.created_at": datetime.now(UTC).isoformat().encode()}
            self._files.write(path, _parquet(table.replace_schema_metadata({**(table.schema.metadata or {}), **own})))
        return self.snapshot(model, sha256)

    def snapshot(self, model: str, sha256: str) -> Snapshot:
        """A data set by its hash.

        Raises:
            NotFoundError: the lake does not have it.
        """
        path = _snapshot_path(model, sha256)
        if not self._files.exists(path):
            raise NotFoundError(f"no data set {sha256[:12]} of {model} in the lake; run `slipway run {model}_data`")
        footer = self._files.footer(path)
        metadata = footer.schema.to_arrow_schema().metadata or {}
        return Snapshot(
            model=model,
            sha256=sha256,
            rows=footer.num_rows,
            uri=self._files.uri(path),
            source="retrain" if metadata.get(b"slipway.source") == b"retrain" else "loader",
            created_at=datetime.fromisoformat(metadata[b"slipway.created_at"].decode()),
        )

    def read_snapshot(self, snapshot: Snapshot) -> pd.DataFrame:
        """The rows of a data set, in the order they were written.

        Raises:
            NotFoundError: the lake does not have it.
            ArtefactError: its content no longer has the hash that names it.
        """
        from slipway.adapters.fingerprint import table_sha256

        self.snapshot(snapshot.model, snapshot.sha256)
        table = self._files.table(_snapshot_path(snapshot.model, snapshot.sha256))
        if table_sha256(table) != snapshot.sha256:
            raise ArtefactError(
                f"data set {snapshot.uri} was changed since it was written; restore it or train on another"
            )
        frame: pd.DataFrame = table.to_pandas()
        return frame

    # -- reports ---------------------------------------------------------------------------------

    def write_report(self, model: str, run: str, name: str, content: str | bytes) -> str:
        """Write `reports/model=…/<run>/<name>` and return its path or URL; a report of the same name is replaced.

        Raises:
            DataError: run or name would leave its folder.
        """
        for part in (run, name):
            if not part or "/" in part or part.startswith("."):
                raise DataError(f"{part!r} cannot name a report: it must be a plain file name")
        path = f"reports/model={model}/{run}/{name}"
        self._files.write(path, content.encode() if isinstance(content, str) else content)
        return self._files.uri(path)

    def read_report(self, model: str, run: str, name: str) -> bytes:
        """The content of a report.

        Raises:
            NotFoundError: there is none of that name.
        """
        path = f"reports/model={model}/{run}/{name}"
        if not self._files.exists(path):
            raise NotFoundError(f"no report {name} of {model} in {run}; it may have been cleared away")
        return self._files.read(path)


def _highest_hash(limit: int, total: int) -> int:
    """A bound that a tenth more than `limit` of `total` rows stay below, and some more where `limit` is small."""
    return min(2**64 - 1, int(2**64 * (1.1 * limit + 100) / total))


def _snapshot_path(model: str, sha256: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise NotFoundError(f"{sha256!r} is no data set's hash: it has 64 hexadecimal digits")
    return f"datasets/model={model}/{sha256}.parquet"


def _parquet(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _arrow_type(name: str) -> pa.DataType:
    import pyarrow as pa

    return {
        "string": pa.string(),
        "double": pa.float64(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "bool": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"),
        "list<double>": pa.list_(pa.float64()),
    }[name]


def _empty(columns: Sequence[tuple[str, str]]) -> pa.Table:
    import pyarrow as pa

    return pa.schema([(name, _arrow_type(kind)) for name, kind in columns]).empty_table()


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame
