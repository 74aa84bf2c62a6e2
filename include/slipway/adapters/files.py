"""Whole, immutable files below one fsspec URL, and DuckDB over the Parquet ones among them."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FileStore"]

_STRAY_SECONDS = 3600.0


class FileStore:
    """Paths are relative to the URL and use forward slashes.

    On a local disk a file is written aside, fsynced and renamed. Object stores show an object only when it is whole.
    The URL is opened when a file is first asked for: a rollback, which asks for none, needs neither lake nor library.

    Raises:
        DataError: the URL cannot be opened; by whatever uses it first.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import fsspec

        try:
            files, root = fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise DataError(f"the lake's URL {self._url!r} cannot be opened: {error}") from error
        return files, str(root).rstrip("/")

    @property
    def _fs(self) -> Any:
        return self._opened[0]

    @property
    def _root(self) -> str:
        return self._opened[1]

    @cached_property
    def _local(self) -> bool:
        return "file" in _protocols(self._fs)

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    def uri(self, path: str) -> str:
        """A local path, or the URL, of one file."""
        full = self._full(path)
        return full if self._local else str(self._fs.unstrip_protocol(full))

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(self._full(path)))

    def list(self, folder: str) -> list[str]:
        """Files and folders directly in a folder; nothing if it does not exist."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._full(folder), detail=False)
        except FileNotFoundError:
            return []
        names = [str(path).rstrip("/").rsplit("/", 1)[-1] for path in found]
        return [f"{folder}/{name}" for name in sorted(names)]

    def read(self, path: str) -> bytes:
        """A whole file."""
        return bytes(self._fs.cat_file(self._full(path)))

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file or none; an existing one is replaced."""
        full = self._full(path)
        if self._local:
            _write_local(Path(full), content)
        else:
            self._fs.makedirs(full.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(full, content)

    @contextlib.contextmanager
    def writing(self, path: str) -> Iterator[Path]:
        """A local file to write to, which becomes `path` as a whole at the end; an exception leaves nothing."""
        full = self._full(path)
        if self._local:
            with _aside(Path(full)) as aside:
                yield aside
            return
        with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
            aside = Path(folder) / "file"
            yield aside
            self._fs.makedirs(full.rsplit("/", 1)[0], exist_ok=True)
            self._fs.put_file(str(aside), full)

    def delete(self, path: str) -> None:
        """Delete a file; deleting twice is fine."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._full(path))

    def delete_folder(self, folder: str) -> None:
        """Delete a folder that is empty; object stores have none."""
        if self._local:
            with contextlib.suppress(OSError):
                Path(self._full(folder)).rmdir()

    def facts(self, path: str) -> tuple[int, datetime]:
        """Size in bytes and time of the last change (UTC); nothing at all for a file that is gone."""
        try:
            full = self._full(path)
            changed = self._fs.modified(full)
            changed = changed if changed.tzinfo else changed.replace(tzinfo=UTC)
            return int(self._fs.size(full) or 0), changed
        except FileNotFoundError:
            return 0, datetime.fromtimestamp(0, UTC)

    def sweep_strays(self, folder: str) -> None:
        """Delete what killed processes left half written in a local folder."""
        if self._local:
            for path in Path(self._full(folder)).glob(".*.tmp"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _STRAY_SECONDS:
                        path.unlink()

    @property
    def local_root(self) -> Path | None:
        """The folder, if it is on a local disk."""
        return Path(self._root) if self._local else None

    def footer(self, path: str) -> Any:
        """The metadata of a Parquet file, without its rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._fs.open(self._full(path), "rb") as file:
            try:
                return pq.ParquetFile(file).metadata
            except pa.ArrowInvalid as error:
                raise DataError(f"{path} is no Parquet file: {error}") from error

    def metadata(self, path: str) -> dict[bytes, bytes]:
        """What the footer of a Parquet file says beside its columns."""
        return dict(self.footer(path).metadata or {})

    def schema(self, path: str) -> pa.Schema:
        """The columns of a Parquet file."""
        return self.footer(path).schema.to_arrow_schema().remove_metadata()

    def table(self, path: str) -> pa.Table:
        """All rows of a Parquet file."""
        import pyarrow.parquet as pq

        with self._fs.open(self._full(path), "rb") as file:
            return pq.ParquetFile(file).read()

    def query(
        self,
        query: str,
        paths: Sequence[str],
        parameters: Mapping[str, Any],
        *,
        provenance: bool = False,
        beside: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """Run a DuckDB query in which `log` is the rows of the given Parquet files.

        Files may lack columns that others have; rows of those get nulls there. With `provenance` each row also
        has DuckDB's `filename` and `file_row_number`. Frames of `beside` are tables of the query by name.

        Raises:
            FileNotFoundError: one of the files is gone.
        """
        import duckdb

        with duckdb.connect(":memory:") as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if not self._local:
                connection.register_filesystem(self._fs)
            for name, frame in (beside or {}).items():
                connection.register(name, frame)
            urls = [self.uri(path) for path in paths]
            # Values are bound, never put into the text; what varies in it is one word of our own.
            statement = f"""
                WITH log AS (
                    SELECT * FROM read_parquet($paths, union_by_name = true, hive_partitioning = false,
                        filename = {provenance}, file_row_number = {provenance})
                ) {query}
            """  # noqa: S608
            try:
                return connection.sql(statement, params={"paths": urls, **parameters}).to_arrow_table()
            except (duckdb.Error, OSError) as error:
                missing = [path for path in paths if not self.exists(path)]
                if missing:
                    raise FileNotFoundError(missing[0]) from error
                raise DataError(f"the lake cannot be read: {str(error).splitlines()[0]}") from error


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _write_local(path: Path, content: bytes) -> None:
    with _aside(path) as aside:
        aside.write_bytes(content)


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when it is whole and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        yield aside
        _sync(aside, os.O_RDONLY)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    _sync(path.parent, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
