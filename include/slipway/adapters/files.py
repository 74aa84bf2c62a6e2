"""Whole, immutable files below one fsspec URL, and DuckDB over the Parquet ones among them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FileStore"]


class FileStore:
    """Paths are relative to the URL and use forward slashes.

    On a local disk a file is written aside, fsynced and renamed. Object stores show an object only when it is whole.
    """

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise DataError(f"the lake's URL {url!r} cannot be opened: {error}") from error
        self._root = str(root).rstrip("/")
        self._local = "file" in _protocols(self._fs)

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

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file or none; an existing one is replaced."""
        full = self._full(path)
        if self._local:
            _write_local(Path(full), content)
        else:
            self._fs.makedirs(full.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(full, content)

    def footer(self, path: str) -> Any:
        """The metadata of a Parquet file, without its rows."""
        import pyarrow.parquet as pq

        with self._fs.open(self._full(path), "rb") as file:
            return pq.ParquetFile(file).metadata

    def schema(self, path: str) -> pa.Schema:
        """The columns of a Parquet file."""
        return self.footer(path).schema.to_arrow_schema().remove_metadata()

    def table(self, path: str) -> pa.Table:
        """All rows of a Parquet file."""
        import pyarrow.parquet as pq

        with self._fs.open(self._full(path), "rb") as file:
            return pq.ParquetFile(file).read()

    def query(
        self, query: str, paths: Sequence[str], parameters: Mapping[str, Any], *, provenance: bool = False
    ) -> pa.Table:
        """Run a DuckDB query in which `log` is the rows of the given Parquet files.

        Files may lack columns that others have; rows of those get nulls there. With `provenance` each row also
        has DuckDB's `filename` and `file_row_number`.

        Raises:
            FileNotFoundError: one of the files is gone.
        """
        import duckdb

        with duckdb.connect(":memory:") as connection:
            connection.execute("SET TimeZone = 'UTC'")
            if not self._local:
                connection.register_filesystem(self._fs)
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
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
