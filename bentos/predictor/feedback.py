"""Labels that arrive after the prediction, or before."""

from __future__ import annotations

import uuid
from typing import Any

from predictor.checks import parse, shown, type_name
from predictor.log import Label
from predictor.problems import Problem
from predictor.schema import Schema, ensure_label

__all__ = ["decode_feedback"]

_FIELDS = {"request_id", "row", "label"}
MAX_ROW = 2**31 - 1


def decode_feedback(body: bytes, schema: Schema, max_labels: int) -> list[Label]:
    """`{"request_id", "row"?, "label"}` or a list of them.

    Raises:
        Problem: 400 or 422; nothing of a refused list is stored.
    """
    document = parse(body)
    entries = document if isinstance(document, list) else [document]
    if not entries:
        raise Problem(422, "invalid", "must hold at least one label")
    if len(entries) > max_labels:
        raise Problem(422, "invalid", f"holds {len(entries)} labels; at most {max_labels} are accepted in one request")
    labels: list[Label] = []
    errors: list[dict[str, Any]] = []
    for index, entry in enumerate(entries):
        try:
            labels.append(_label(entry, schema))
        except Problem as problem:
            error = {"path": f"[{index}]" if isinstance(document, list) else "$", "message": problem.detail}
            errors.append(error | {"row": index} if isinstance(document, list) else error)
            if len(errors) == 100:
                break
    if errors:
        raise Problem(422, "invalid", f"{errors[0]['path']}: {errors[0]['message']}", errors)
    return labels


def _label(entry: Any, schema: Schema) -> Label:
    if not isinstance(entry, dict):
        raise Problem(422, "invalid", f"must be an object, not {type_name(entry)}")
    for name in entry:
        if name not in _FIELDS:
            raise Problem(422, "invalid", f"{shown(name)}: unknown field")
    for name in ("request_id", "label"):
        if name not in entry:
            raise Problem(422, "invalid", f"{name}: missing")
    row = entry.get("row", 0)
    if isinstance(row, float) and row.is_integer():  # JSON does not tell 1.0 from 1
        row = int(row)
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row <= MAX_ROW:
        raise Problem(422, "invalid", "row: must be the row's index in its request, a whole number from 0")
    try:
        request_id = uuid.UUID(entry["request_id"]).bytes
    except (ValueError, AttributeError, TypeError):
        raise Problem(422, "invalid", "request_id: must be a UUID") from None
    return request_id, row, ensure_label(schema, entry["label"])
