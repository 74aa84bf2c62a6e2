"""The slow, exact reading of a request that the fast decoder refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from predictor.problems import Problem

if TYPE_CHECKING:
    from predictor.schema import Feature, Row

__all__ = ["check_request", "parse", "type_name"]

MAX_ERRORS = 100


def parse(body: bytes) -> Any:
    """Untyped JSON, NaN and infinities included, so that they can be reported with their path.

    Raises:
        Problem: 400, it is not JSON.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(body.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise Problem(400, "malformed", f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except UnicodeDecodeError:
        raise Problem(400, "malformed", "the body is not UTF-8") from None
    except RecursionError:
        raise Problem(400, "malformed", "the body is nested too deeply") from None
    except ValueError:
        raise Problem(400, "malformed", "the body is not JSON: a number has too many digits") from None


class _Findings:
    """Collects what is wrong, at most `MAX_ERRORS` of it."""

    def __init__(self) -> None:
        self.errors: list[dict[str, Any]] = []

    @property
    def enough(self) -> bool:
        return len(self.errors) >= MAX_ERRORS

    def add(self, path: str, message: str, row: int | None = None) -> None:
        error: dict[str, Any] = {"path": path, "message": message}
        if row is not None:
            error["row"] = row
        self.errors.append(error)

    def raise_any(self) -> None:
        if not self.errors:
            return
        first = self.errors[0]
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        raise Problem(422, "invalid", f"{first['path']}: {first['message']}{more}", self.errors)


def check_request(
    body: Any, features: Sequence[Feature], max_rows: int, origin: str = "rows"
) -> tuple[list[Row], bool]:
    """The rows of a parsed body and whether it was a single one.

    Raises:
        Problem: 422 with the path of each invalid field and, in a batch, the row's index.
    """
    findings = _Findings()
    if not isinstance(body, dict):
        findings.add("$", f"must be an object, not {type_name(body)}")
        findings.raise_any()
    if "rows" not in body:
        row = _check_row(body, features, "", None, findings)
        findings.raise_any()
        return [row], True
    rows = body["rows"]
    for name in body:
        if name != "rows" and not findings.enough:
            findings.add(shown(name), "unknown field; a batch has only rows")
    if not isinstance(rows, list):
        findings.add(origin, f"must be a list of objects, not {type_name(rows)}")
    elif not rows:
        findings.add(origin, "must hold at least one row")
    elif len(rows) > max_rows:
        findings.add(origin, f"holds {len(rows)} rows; at most {max_rows} are accepted in one request")
    findings.raise_any()
    result = []
    for index, row in enumerate(rows):
        result.append(_check_row(row, features, f"{origin}[{index}]", index, findings))
        if findings.enough:
            break
    findings.raise_any()
    return result, False


def _check_row(row: Any, features: Sequence[Feature], path: str, index: int | None, findings: _Findings) -> Row:
    if not isinstance(row, dict):
        findings.add(path or "$", f"must be an object, not {type_name(row)}", index)
        return ()
    prefix = f"{path}." if path else ""
    values = []
    for feature in features:
        if feature.name not in row:
            findings.add(prefix + feature.name, "missing", index)
            continue
        try:
            values.append(_check_value(row[feature.name], feature))
        except ValueError as error:
            findings.add(prefix + feature.name, str(error), index)
    known = {feature.name for feature in features}
    for name in row:
        if name not in known and not findings.enough:
            findings.add(prefix + shown(name), "unknown field", index)
    return tuple(values)


def _check_value(value: Any, feature: Feature) -> Any:
    if value is None:
        if feature.nullable:
            return None
        raise ValueError("must not be null")
    if feature.numeric:
        return _check_number(value, feature)
    if not isinstance(value, str):
        raise ValueError(f"must be a string, not {type_name(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
    if feature.kind == "category" and value not in (feature.categories or ()):
        raise ValueError(f"must be one of {', '.join(feature.categories or ())}")
    if len(value) > feature.max_length:
        raise ValueError(f"has {len(value)} characters; at most {feature.max_length} are accepted")
    return value


def _check_number(value: Any, feature: Feature) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, not {type_name(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be finite")
    low, high = feature.bounds
    unit = f" {feature.unit}" if feature.unit else ""
    if not value >= low:
        raise ValueError(f"must be at least {low:g}{unit}")
    if not value <= high:
        raise ValueError(f"must be at most {high:g}{unit}")
    if feature.kind == "number":
        return float(value)
    if value != int(value):
        raise ValueError("must be a whole number")
    return int(value)


def type_name(value: Any) -> str:
    """What JSON calls the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def shown(name: Any) -> str:
    """A field's name as sent, made short and printable."""
    text = str(name).encode("utf-8", "replace").decode()
    return text if len(text) <= 64 else text[:61] + "..."
