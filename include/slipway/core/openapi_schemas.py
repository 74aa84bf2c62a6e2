"""JSON schemas of a model's rows, labels and answers, for the gateway's OpenAPI document. Pure."""

from __future__ import annotations

from typing import Any

from slipway.spec import Feature, ModelSpec

__all__ = ["invocations_schema", "prediction_schema", "row_schema", "scoring_schema", "target_schema"]

# What a bento can compute with: numbers are float32 there.
_FLOAT32_MAX = 3.4028234663852886e38
_INT64_MAX = 2**63 - 1


def row_schema(spec: ModelSpec) -> dict[str, Any]:
    """One row: every feature by name, with its bounds or categories."""
    return {
        "type": "object",
        "properties": {feature.name: _feature_schema(feature) for feature in spec.features},
        "required": list(spec.feature_names),
        "additionalProperties": False,
    }


def _feature_schema(feature: Feature) -> dict[str, Any]:
    kinds = {"number": "number", "integer": "integer", "category": "string", "text": "string"}
    schema: dict[str, Any] = {"type": [kinds[feature.kind], "null"] if feature.nullable else kinds[feature.kind]}
    if feature.kind in ("number", "integer"):
        limit = _FLOAT32_MAX if feature.kind == "number" else _INT64_MAX
        schema["minimum"] = -limit if feature.minimum is None else max(feature.minimum, -limit)
        schema["maximum"] = limit if feature.maximum is None else min(feature.maximum, limit)
    if feature.categories is not None:
        schema["enum"] = [*feature.categories, None] if feature.nullable else list(feature.categories)
    if feature.kind == "text":
        schema["maxLength"] = feature.max_length
    description = f"{feature.description} [{feature.unit}]" if feature.unit else feature.description
    return schema | ({"description": description} if description else {})


def scoring_schema(spec: ModelSpec, row: dict[str, Any], max_rows: int) -> dict[str, Any]:
    """Rows by name, or as lists in the order of the features; exactly one spelling at a time."""
    values = [_feature_schema(feature) for feature in spec.features]
    count = len(values)
    in_order = {"type": "array", "prefixItems": values, "minItems": count, "maxItems": count}
    bounds = {"type": "array", "minItems": 1, "maxItems": max_rows}
    plain = values if count == 1 else []  # of a single feature a row may be its value
    either = {**bounds, "items": {"anyOf": [row, in_order, *plain]}}
    split = {
        "type": "object",
        "properties": {"columns": {"const": list(spec.feature_names)}, "data": {**bounds, "items": in_order}},
        "required": ["data"],
    }
    forms = {
        "dataframe_records": {**bounds, "items": row},
        "dataframe_split": split,
        "instances": either,
        "inputs": either,
    }
    return {
        "oneOf": [
            {"type": "object", "properties": {name: form}, "required": [name], "additionalProperties": False}
            for name, form in forms.items()
        ]
    }


def target_schema(spec: ModelSpec) -> dict[str, Any]:
    """A prediction or a label."""
    if spec.target.classes is not None:
        return {"type": "string", "enum": list(spec.target.classes)}
    return {"type": "number", "minimum": -_FLOAT32_MAX, "maximum": _FLOAT32_MAX}


def prediction_schema(spec: ModelSpec) -> dict[str, Any]:
    """What `/predict` answers for one row, or for several."""
    one = target_schema(spec)
    identity = {
        "request_id": {"type": "string", "format": "uuid"},
        "model": {"type": "string", "const": spec.name},
        "model_version": {"type": "string"},
        "slot": {"type": "string", "enum": ["blue", "green"]},
    }
    single: dict[str, Any] = {**identity, "prediction": one}
    batch: dict[str, Any] = {**identity, "predictions": {"type": "array", "items": one}}
    if spec.target.classes is not None:
        chances = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}}
        single["probabilities"] = chances
        batch["probabilities"] = {"type": "array", "items": chances}
    return {
        "anyOf": [
            {"type": "object", "properties": single, "required": [*identity, "prediction"]},
            {"type": "object", "properties": batch, "required": [*identity, "predictions"]},
        ]
    }


def invocations_schema(spec: ModelSpec) -> dict[str, Any]:
    """What MLflow's scoring protocol answers."""
    return {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": target_schema(spec)}},
        "required": ["predictions"],
    }
