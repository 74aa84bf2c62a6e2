"""The SHA-256 of a table's content: the same rows have the same hash, whatever wrote them to disk."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["table_sha256"]


def table_sha256(table: pa.Table) -> str:
    """Hash of names, types, nulls and values, column by column; the order of rows and columns counts.

    Parquet bytes would not do: they differ between versions of the writer. Values below a null are not
    part of the content and are left out, NaN counts as null as it does in pandas.
    """
    digest = hashlib.sha256()
    digest.update(f"{table.num_rows}".encode())
    for field, column in zip(table.schema, table.columns, strict=True):
        _update(digest, field.name, column)
    return digest.hexdigest()


def _update(digest: Any, name: str, column: Any) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    array = pc.cast(column, column.type.value_type) if pa.types.is_dictionary(column.type) else column
    kind, values = _canonical(array)
    valid = pc.is_valid(values).to_numpy(zero_copy_only=False)
    digest.update(f"\0{name}\0{kind}\0".encode())
    digest.update(np.packbits(valid).tobytes())
    if kind == "string":
        present = values.drop_null().to_pylist()
        for text in present:
            raw = text.encode()
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
    else:
        digest.update(np.ascontiguousarray(values.drop_null().to_numpy()).tobytes())


def _canonical(array: Any) -> tuple[str, Any]:
    """The column as one of four kinds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_floating(kind):
        values = pc.cast(array, pa.float64())
        return "float64", pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "int64", pc.cast(array, pa.int64())
    if pa.types.is_temporal(kind) and not pa.types.is_time(kind):
        return "timestamp_us", pc.cast(pc.cast(array, pa.timestamp("us", getattr(kind, "tz", None))), pa.int64())
    return "string", pc.cast(array, pa.large_string())
