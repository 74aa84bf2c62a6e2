"""From request bytes to rows: fast when the request is right, exact about what is wrong when it is not.

The fast way is a msgspec decoder generated from the schema. When it refuses, the body is read again
without types (`checks.py`) to find every invalid field with its path. The second reading also
accepts what is right but spelled unusually, such as 3.0 for an integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec

from predictor.checks import check_request, parse
from predictor.problems import Problem

__all__ = ["FLOAT32_MAX", "INT64_MAX", "Feature", "RequestDecoder", "Row", "Schema"]

# A model computes in float32 (ONNX Runtime): a larger number would silently become infinite.
FLOAT32_MAX = 3.4028234663852886e38
INT64_MAX = 2**63 - 1

Row = tuple[Any, ...]


class Feature(msgspec.Struct, frozen=True):
    """One input column, as the model's schema declares it."""

    name: str
    kind: Literal["number", "integer", "category", "text"] = "number"
    unit: str | None = None
    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    nullable: bool = False
    max_length: int = 20_000
    description: str = ""

    @property
    def numeric(self) -> bool:
        return self.kind in ("number", "integer")

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value accepted; for numeric kinds."""
        limit = FLOAT32_MAX if self.kind == "number" else INT64_MAX
        low = -limit if self.minimum is None else max(self.minimum, -limit)
        high = limit if self.maximum is None else min(self.maximum, limit)
        return low, high

    def annotation(self) -> Any:
        """The msgspec type of this field; strict, so neither a string nor a boolean is a number."""
        low, high = self.bounds
        kind: Any
        if self.kind == "number":
            kind = Annotated[float, msgspec.Meta(ge=low, le=high)]
        elif self.kind == "integer":
            kind = Annotated[int, msgspec.Meta(ge=_ceil(low), le=_floor(high))]
        elif self.kind == "category":
            kind = Literal[self.categories or ("",)]
        else:
            kind = Annotated[str, msgspec.Meta(max_length=self.max_length)]
        return kind | None if self.nullable else kind


def _ceil(value: float) -> int:
    return -int(-value // 1)


def _floor(value: float) -> int:
    return int(value // 1)


class Target(msgspec.Struct, frozen=True):
    """What is predicted: one of `classes`, or a number."""

    name: str
    classes: tuple[str, ...] | None = None
    unit: str | None = None
    description: str = ""


class Schema(msgspec.Struct, frozen=True):
    """`schema.json` of a bento."""

    model: str
    task: Literal["classification", "regression"]
    features: tuple[Feature, ...]
    target: Target
    description: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)


@dataclass(frozen=True)
class Request:
    """The rows of one request in feature order; `single` if the body was one flat object."""

    rows: list[Row]
    single: bool


class RequestDecoder:
    """Decodes bodies of `/predict` for one schema."""

    def __init__(self, schema: Schema, max_rows: int) -> None:
        self.schema = schema
        self.max_rows = max_rows
        fields = [(feature.name, feature.annotation()) for feature in schema.features]
        # No row can be part of a reference cycle: keeping them from the collector saves its passes over a batch.
        row = msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False)
        rows = Annotated[list[row], msgspec.Meta(min_length=1, max_length=max_rows)]  # type: ignore[valid-type]
        self._one = msgspec.json.Decoder(row)
        self._many = msgspec.json.Decoder(msgspec.defstruct("Rows", [("rows", rows)], forbid_unknown_fields=True))
        self._rows = rows

    def decode(self, body: bytes) -> Request:
        """The rows of a body.

        Raises:
            Problem: 400 if it is not JSON, 422 with every invalid field if it is.
        """
        try:
            return Request([msgspec.structs.astuple(self._one.decode(body))], True)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        try:
            # The decoder above stops at the first key, so a batch loses nothing by having tried it.
            batch: Any = self._many.decode(body)
            return Request([msgspec.structs.astuple(row) for row in batch.rows], False)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        rows, single = check_request(parse(body), self.schema.features, self.max_rows)
        return Request(rows, single)

    def convert(self, records: list[Any], origin: str) -> list[Row]:
        """Rows out of already parsed records; `origin` starts the paths in errors, for example `instances`.

        Raises:
            Problem: 422.
        """
        try:
            return [msgspec.structs.astuple(row) for row in msgspec.convert(records, self._rows)]
        except (msgspec.ValidationError, RecursionError):
            rows, _ = check_request({"rows": records}, self.schema.features, self.max_rows, origin)
            return rows


def ensure_label(schema: Schema, label: Any) -> str | float:
    """A label that fits the target.

    Raises:
        Problem: 422.
    """
    classes = schema.target.classes
    if classes is not None:
        if isinstance(label, str) and label in classes:
            return label
        raise Problem(422, "invalid", f"label: must be one of {', '.join(classes)}")
    if isinstance(label, bool) or not isinstance(label, int | float) or not abs(label) <= FLOAT32_MAX:
        raise Problem(422, "invalid", "label: must be a finite number")
    return float(label)
