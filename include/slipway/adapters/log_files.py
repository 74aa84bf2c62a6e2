"""Which Parquet files of the log are to be read, and how many of them become one.

A folder holds the rows of one date: one file per shipped segment, and compacted files that replace many of those.
A compacted file is the only record of what it replaces: its footer lists the names of all merged files, of the
segments as well as of compacted files in between. It appears whole, by a rename or one upload, and that is the whole
swap: from then on readers leave out what it lists, whether that is deleted already or not. A crash at any line leaves
either the old files or both, never a row twice.

The list also tells the shipper that a segment is in the lake although no file bears its name any more.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from slipway.adapters.files import FileStore
from slipway.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["LogFiles", "again", "is_compacted"]

T = TypeVar("T")
_Span = tuple[int, int]
_TRIES = 50
_RETRY_SECONDS = 0.02
_MERGED = b"slipway.merged"
_CREATED = b"slipway.created_at"
_STAMP = re.compile(r"(?:\d{8}T|hour-)(\d{2})")
_COMPACTED = re.compile(r"(?:hour-\d{2}|day)-[0-9a-f]{16}")
_ROW_GROUP_ROWS = 131_072
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_MOST_SPANS = 200_000  # of files whose times are remembered: about 100 MB
_READERS = 16  # footers at once: an object store takes its time for each


def is_compacted(name: str) -> bool:
    """Whether a file's name, without its ending, is that of a compacted file."""
    return bool(_COMPACTED.fullmatch(name))


def again(read: Callable[[], T]) -> T:
    """The outcome of `read`, asked again when a file that it had listed was replaced before it was read.

    Raises:
        FileNotFoundError: files go on vanishing.
    """
    for _ in range(_TRIES - 1):
        try:
            return read()
        except FileNotFoundError:
            time.sleep(_RETRY_SECONDS)
    return read()


class LogFiles:
    """The log's folders in one lake. Only one process at a time may merge; any number may read and ship."""

    def __init__(self, files: FileStore) -> None:
        self._files = files
        self._known: dict[str, frozenset[str]] = {}
        self._spans: dict[str, _Span | None] = {}

    def touching(self, folder: str, start: datetime, end: datetime) -> list[str]:
        """The visible files that may hold rows with `start <= ts < end`, by what their footers say.

        Segments come every few seconds and are merged at night, so a day has ten thousand files. Opening all of them
        for the last minute's rows takes seconds; a footer is read once, since a file never changes.

        Raises:
            FileNotFoundError: a file vanished meanwhile; ask again.
        """
        paths = self.visible(folder)
        spans = self._spans if len(self._spans) + len(paths) <= _MOST_SPANS else {}
        unknown = [path for path in paths if path not in spans]
        if unknown:
            with ThreadPoolExecutor(_READERS if self._files.local_root is None else 1) as pool:
                spans.update(zip(unknown, pool.map(self._span, unknown), strict=True))
        self._spans = spans
        first, before = ((moment - _EPOCH) // _MICROSECOND for moment in (start, end))
        return [path for path in paths if (span := spans[path]) is None or (span[0] < before and first <= span[1])]

    def _span(self, path: str) -> _Span | None:
        return _times(self._files.footer(path))

    def visible(self, folder: str) -> list[str]:
        """The files that hold each row of a folder exactly once.

        Raises:
            FileNotFoundError: a file vanished meanwhile; ask again.
        """
        paths = self._listed(folder)
        gone = self._superseded(paths)
        return [path for path in paths if _name(path) not in gone]

    def holds(self, folder: str, name: str) -> bool:
        """Whether the rows of a segment are in the folder, in a file of its own or merged with others.

        Raises:
            FileNotFoundError: a file vanished meanwhile; ask again.
        """
        # In this order: a file that is deleted between the two questions was merged before the second.
        if self._files.exists(f"{folder}/{name}.parquet"):
            return True
        return name in self._superseded(self._files.list(folder))

    def _listed(self, folder: str) -> list[str]:
        """A listing that has every compacted file whose sources it lacks.

        A listing takes a while, in which a source may be deleted before and its successor appear behind the point that
        the listing has reached. If a second listing shows no compacted file more, the first one is safe.
        """
        first = self._parquet(folder)
        while True:
            second = self._parquet(folder)
            if {path for path in second if is_compacted(_name(path))} <= set(first):
                return first
            first = second

    def _parquet(self, folder: str) -> list[str]:
        return [
            path
            for path in self._files.list(folder)
            if path.endswith(".parquet") and not path.rsplit("/", 1)[-1].startswith(".")
        ]

    def _superseded(self, paths: Sequence[str]) -> set[str]:
        merged: set[str] = set()
        for path in paths:
            if is_compacted(_name(path)):
                merged |= self._merged(path)
        return merged

    def _merged(self, path: str) -> frozenset[str]:
        """The names that a compacted file replaces; read once, since the file never changes."""
        if path not in self._known:
            metadata = self._files.metadata(path)
            if _MERGED not in metadata:
                raise DataError(f"{path} has the name of a compacted file and does not say what it replaces")
            names = zlib.decompress(base64.b64decode(metadata[_MERGED])).decode().split("\n")
            self._known[path] = frozenset(names)
        return self._known[path]

    # -- merging -----------------------------------------------------------------------------------

    def merge_hours(self, folder: str, date: datetime, before: datetime) -> list[str]:
        """Merge the segments of each hour of `date` that ended before `before`; the new files."""
        by_hour: dict[int, list[str]] = {}
        for path in self.visible(folder):
            if not is_compacted(_name(path)):
                by_hour.setdefault(_hour(path), []).append(path)
        ended = [hour for hour in sorted(by_hour) if date + timedelta(hours=hour + 1) <= before]
        return [self._merge(folder, f"hour-{hour:02d}", [by_hour[hour]]) for hour in ended if len(by_hour[hour]) > 1]

    def merge_day(self, folder: str) -> list[str]:
        """Merge everything in a folder into one file; nothing if it is one already.

        One hour's rows are in memory at a time.
        """
        paths = self.visible(folder)
        if len(paths) < 2:
            return []
        by_hour: dict[int, list[str]] = {}
        for path in sorted(paths, key=lambda path: (not is_compacted(_name(path)), path)):
            by_hour.setdefault(_hour(path), []).append(path)
        return [self._merge(folder, "day", [by_hour[hour] for hour in sorted(by_hour)])]

    def _merge(self, folder: str, kind: str, parts: Sequence[Sequence[str]]) -> str:
        """Write one file out of parts that are each sorted by time on their own; its path."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sources = [path for part in parts for path in part]
        names = self._all_names(sources)
        target = f"{folder}/{kind}-{hashlib.sha256(names.encode()).hexdigest()[:16]}.parquet"
        footers = [self._files.footer(path) for path in sources]
        try:
            schema = pa.unify_schemas(
                [footer.schema.to_arrow_schema().remove_metadata() for footer in footers], promote_options="permissive"
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"{folder}: a column has types that do not fit into one file: {error}") from error
        own = {
            _MERGED: base64.b64encode(zlib.compress(names.encode(), 9)),
            _CREATED: datetime.now(UTC).isoformat().encode(),
        }
        rows = 0
        with self._files.writing(target) as aside:
            with pq.ParquetWriter(aside, schema, compression="zstd") as writer:
                writer.add_key_value_metadata(own)
                for part in parts:
                    table = _by_time([self._files.table(path) for path in part], schema)
                    writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
                    rows += table.num_rows
            expected = sum(footer.num_rows for footer in footers)
            if rows != expected:
                raise DataError(f"{folder}: {rows} of {expected} rows were merged; nothing was replaced")
        return target

    def _all_names(self, sources: Iterable[str]) -> str:
        names: set[str] = set()
        for path in sources:
            names.add(_name(path))
            if is_compacted(_name(path)):
                names |= self._merged(path)
        return "\n".join(sorted(names))

    def sweep(self, folder: str, before: datetime) -> int:
        """Delete what was replaced before `before`, when nobody who listed it can still be reading; how many files."""
        paths = self._parquet(folder)
        deleted = 0
        for path in paths if len(paths) > 1 else ():
            if is_compacted(_name(path)) and self._created(path) <= before:
                merged = self._merged(path)
                for old in [old for old in paths if _name(old) in merged]:
                    self._files.delete(old)
                    deleted += 1
        self._files.sweep_strays(folder)
        return deleted

    def _created(self, path: str) -> datetime:
        try:
            return datetime.fromisoformat(self._files.metadata(path)[_CREATED].decode())
        except FileNotFoundError:  # this sweep deleted it: its successor was in the listing as well
            return datetime.max.replace(tzinfo=UTC)


def _by_time(tables: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """The rows in the order of their time; those of one time, as the rows of a batch are, keep their order."""
    import pyarrow as pa

    table = pa.concat_tables([schema.empty_table(), *tables], promote_options="permissive").cast(schema)
    # Arrow documents its sort as stable.
    return table.take(pa.compute.sort_indices(table, sort_keys=[("ts", "ascending")]))


def _times(footer: Any) -> _Span | None:
    """The first and the last `ts` in microseconds, by a Parquet file's statistics; None where it has none."""
    names = footer.schema.names
    if "ts" not in names or not footer.num_row_groups:
        return None
    number = names.index("ts")
    found = [footer.row_group(group).column(number).statistics for group in range(footer.num_row_groups)]
    known = all(one is not None and one.has_min_max for one in found)
    if not known or footer.schema.column(number).converted_type != "TIMESTAMP_MICROS":
        return None
    # As they are stored: turned into datetimes they take as long as reading the footer.
    return min(one.min_raw for one in found), max(one.max_raw for one in found)


def _name(path: str) -> str:
    return path.rsplit("/", 1)[-1].removesuffix(".parquet")


def _hour(path: str) -> int:
    """The hour in which a segment was begun, or of an hour's file; a former day's file counts as the first."""
    match = _STAMP.match(_name(path))
    return int(match[1]) if match else 0
