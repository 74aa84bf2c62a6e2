"""Batch inputs and outputs as Parquet files: read by pieces, so that memory stays bounded whatever the size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slipway.adapters.files import FileStore
from slipway.errors import DataError
from slipway.ports import ScoredPart, ScoreInput, ScorePart

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["ScoreFiles"]

PROBLEM = "problem"
_PART_ROWS = 1_000_000
_FRAME_ROWS = 100_000
_READ_BYTES = 1 << 20
_PROBLEMS_KEY = b"slipway.problems"
_MANIFEST = "_SUCCESS"


class ScoreFiles:
    """The `ScoreStore` port.

    Args:
        url: of the lake; outputs go below it. Inputs may lie anywhere that fsspec reads.
    """

    def __init__(self, url: str) -> None:
        self._files = FileStore(url)

    def survey(self, url: str) -> ScoreInput:
        """The files of an input with their row groups, cut into pieces of about a million rows.

        Raises:
            DataError: there is no Parquet file, one is damaged, or their columns differ.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        fs, paths = _parquet_files(url)
        digest, parts, first = hashlib.sha256(), [], None
        for index, path in enumerate(paths):
            info = fs.info(path)
            try:
                with fs.open(path, "rb") as file:
                    footer = pq.ParquetFile(file).metadata
            except (pa.ArrowInvalid, OSError) as error:
                raise DataError(f"{path} is no readable Parquet file: {error}") from error
            columns = {field.name: str(field.type) for field in footer.schema.to_arrow_schema()}
            first = columns if first is None else first
            if columns != first:
                differing = sorted(set(columns.items()) ^ set(first.items()))
                raise DataError(f"{path} has other columns than {paths[0]}: {', '.join(name for name, _ in differing)}")
            changed = info.get("mtime") or info.get("ETag") or info.get("LastModified")
            digest.update(f"{path}\n{info['size']}\n{changed}\n{footer.num_rows}\n".encode())
            parts += _pieces(index, path, [footer.row_group(at).num_rows for at in range(footer.num_row_groups)])
        return ScoreInput(digest.hexdigest(), first or {}, tuple(parts))

    def frames(self, part: ScorePart, features: Sequence[str], keep: Sequence[str]) -> Iterator[pd.DataFrame]:
        """The rows of a piece, in frames of at most 100,000; columns to keep stay as Arrow has them.

        Raises:
            DataError: the file is gone or damaged.
        """
        import fsspec
        import pandas as pd
        import pyarrow as pa
        import pyarrow.parquet as pq

        fs, path = fsspec.core.url_to_fs(part.file)
        names = list(dict.fromkeys([*features, *keep]))
        try:
            with fs.open(path, "rb") as opened:
                file = pq.ParquetFile(opened, pre_buffer=False, buffer_size=_READ_BYTES)
                groups = list(part.row_groups)
                for batch in file.iter_batches(_FRAME_ROWS, row_groups=groups, columns=names, use_threads=False):
                    table = pa.Table.from_batches([batch])
                    frame = table.select(list(features)).to_pandas()
                    kept = [name for name in keep if name not in features]
                    if kept:
                        frame = pd.concat([frame, table.select(kept).to_pandas(types_mapper=pd.ArrowDtype)], axis=1)
                    yield frame
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{part.file} cannot be read: {error}") from error

    def done(self, folder: str) -> Mapping[str, ScoredPart]:
        """The pieces whose output is there, by name."""
        found = {}
        for path in self._files.list(folder):
            name = path.rsplit("/", 1)[-1]
            if name.endswith(".parquet"):
                footer = self._files.footer(path)
                problems = int((footer.metadata or {}).get(_PROBLEMS_KEY, b"0"))
                found[name.removesuffix(".parquet")] = ScoredPart(footer.num_rows, problems)
        return found

    def write(self, folder: str, name: str, frames: Iterable[pd.DataFrame]) -> ScoredPart:
        """Write a piece's output as a whole; while it is written nobody sees it."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = problems = 0
        writer: pq.ParquetWriter | None = None
        with self._files.writing(f"{folder}/{name}.parquet") as aside:
            try:
                for frame in frames:
                    table = _plain(pa.Table.from_pandas(frame, preserve_index=False))
                    if writer is None:
                        writer = pq.ParquetWriter(aside, table.schema, compression="zstd")
                    writer.write_table(table.cast(writer.schema))
                    rows += len(frame)
                    problems += int(frame[PROBLEM].notna().sum())
                if writer is None:
                    raise DataError(f"{name} has no rows")
                writer.add_key_value_metadata({_PROBLEMS_KEY.decode(): str(problems)})
            finally:
                if writer is not None:
                    writer.close()
        return ScoredPart(rows, problems)

    def manifest(self, folder: str) -> Mapping[str, Any] | None:
        """What `finish` wrote; None while the job is not complete."""
        path = f"{folder}/{_MANIFEST}"
        return dict(json.loads(self._files.read(path))) if self._files.exists(path) else None

    def finish(self, folder: str, manifest: Mapping[str, Any]) -> None:
        """Mark the output as complete."""
        self._files.sweep_strays(folder)
        self._files.write(f"{folder}/{_MANIFEST}", json.dumps(manifest, indent=1).encode())

    def uri(self, folder: str) -> str:
        """Where a folder lies, for people."""
        return self._files.uri(folder)


def _plain(table: pa.Table) -> pa.Table:
    """Dictionaries as their values: Parquet encodes them as dictionaries anyway, whatever frame they came in."""
    import pyarrow as pa

    fields = [
        pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _parquet_files(url: str) -> tuple[Any, list[str]]:
    import fsspec

    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise DataError(f"{url!r} cannot be opened: {error}") from error
    if fs.isfile(root):
        paths = [root]
    else:
        paths = sorted(path for path in fs.find(root) if path.endswith(".parquet") and not _hidden(path, root))
    if not paths:
        raise DataError(f"there is no Parquet file at {url}")
    return fs, [str(path) if "file" in _names(fs) else str(fs.unstrip_protocol(path)) for path in paths]


def _names(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _hidden(path: str, root: str) -> bool:
    return any(part.startswith((".", "_")) for part in path.removeprefix(root).split("/"))


def _pieces(index: int, path: str, group_rows: Sequence[int]) -> list[ScorePart]:
    """Neighbouring row groups together, as long as they have no more than a million rows; empty ones are left out."""
    pieces: list[ScorePart] = []
    groups: list[int] = []
    rows = 0
    for group, count in [*enumerate(group_rows), (len(group_rows), _PART_ROWS + 1)]:
        if groups and rows + count > _PART_ROWS:
            pieces.append(ScorePart(f"part-{index:05d}-{groups[0]:05d}", path, tuple(groups), rows))
            groups, rows = [], 0
        if count and group < len(group_rows):
            groups.append(group)
            rows += count
    return pieces
