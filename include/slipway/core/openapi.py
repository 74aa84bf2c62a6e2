"""The OpenAPI document of the gateway, with each model's real fields.

Pure: specs in, a JSON-able dictionary out. The bentos validate by the same spec, so a request that
fits this document is one that a bento accepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slipway.spec import Feature, ModelSpec

__all__ = ["document"]

# What a bento can compute with: numbers are float32 there.
_FLOAT32_MAX = 3.4028234663852886e38
_INT64_MAX = 2**63 - 1
_INT32_MAX = 2**31 - 1
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem details",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "path": {"type": "string"},
                    "message": {"type": "string"},
                    "row": {"type": "integer", "description": "index in the batch"},
                },
            },
        },
    },
    "required": ["title", "status"],
}
_TITLES = {
    "400": "malformed JSON",
    "401": "no key",
    "403": "a wrong key, or one that may not be used for this",
    "404": "unknown model",
    "405": "method not allowed",
    "409": "contradicts what is running",
    "413": "body too large",
    "415": "not application/json",
    "422": "invalid fields, each with its path; in a batch the row's index",
    "429": "overload or rate limit; retry later",
    "503": "no live version of the model, or a part of Slipway is down",
}
_REQUEST_HEADERS = [
    {
        "name": "x-request-id",
        "in": "header",
        "required": False,
        "description": "A UUID of yours; otherwise one is made. Returned with the answer, and the key of feedback.",
        "schema": {"type": "string"},
    },
    {
        "name": "x-session-key",
        "in": "header",
        "required": False,
        "description": "Pins a caller to one side of a traffic split.",
        "schema": {"type": "string"},
    },
]
_KEYED = ("/predict/", "/invocations/", "/feedback/")
_RETRY_AFTER = {"retry-after": {"schema": {"type": "integer"}, "description": "seconds; when a rate limit refused"}}
_RESPONSE_HEADERS = {
    "x-request-id": {"schema": {"type": "string", "format": "uuid"}},
    "x-model-version": {"schema": {"type": "string"}},
    "x-slot": {"schema": {"type": "string", "enum": ["blue", "green"]}},
}


def document(
    specs: Iterable[ModelSpec], max_batch_rows: int, version: str, *, need_key: bool = False, limited: bool = False
) -> dict[str, Any]:
    """The OpenAPI 3.1 document for these models.

    Args:
        specs: every model of the installation.
        max_batch_rows: largest number of rows of one request.
        version: Slipway's own version.
        need_key: prediction and feedback routes want a key too.
        limited: the gateway limits rates, also of the control routes.
    """
    paths: dict[str, Any] = {
        "/health": {"get": _operation("Gateway alive", "gateway", {"200": _json_answer({"type": "object"}, "alive")})},
        "/models/info": {
            "get": _operation(
                "Every model with its live version, slots and weights",
                "control",
                {"200": _json_answer({"type": "object"}, "the models"), **_problems("503")},
            )
        },
        "/config": {
            "get": _operation(
                "The traffic split of every model",
                "control",
                {"200": _json_answer({"type": "object"}, "the splits"), **_problems("503")},
            )
        },
    }
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    for spec in specs:
        schemas[f"{spec.name}_row"] = _row_schema(spec)
        paths.update(_model_paths(spec, max_batch_rows))
    _add_refusals(paths, need_key=need_key, limited=limited)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Slipway gateway", "version": version},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "control_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _add_refusals(paths: dict[str, Any], *, need_key: bool, limited: bool) -> None:
    """What the gateway answers by itself, before a bento or the control API has seen the request."""
    for path, methods in paths.items():
        for operation in methods.values():
            answers: dict[str, Any] = operation["responses"]
            if need_key and path.startswith(_KEYED):
                operation["security"] = [{"api_key": []}]
                answers.update(_problems("401", "403"))
            if limited and "control" in operation["tags"]:
                answers.update(_problems("429"))
            if limited and "429" in answers:
                answers["429"] = {**answers["429"], "headers": _RETRY_AFTER}
            operation["responses"] = dict(sorted(answers.items()))


def _model_paths(spec: ModelSpec, max_batch_rows: int) -> dict[str, Any]:
    name = spec.name
    row = {"$ref": f"#/components/schemas/{name}_row"}
    rows = {
        "type": "object",
        "properties": {"rows": {"type": "array", "items": row, "minItems": 1, "maxItems": max_batch_rows}},
        "required": ["rows"],
        "additionalProperties": False,
    }
    feedback = {
        "type": "object",
        "properties": {
            "request_id": {"type": "string", "format": "uuid"},
            "row": {"type": "integer", "minimum": 0, "maximum": _INT32_MAX, "default": 0},
            "label": _target_schema(spec),
        },
        "required": ["request_id", "label"],
        "additionalProperties": False,
    }
    refusals = _problems("400", "413", "415", "422", "429", "503")
    return {
        f"/predict/{name}": {
            "post": _operation(
                f"Predict {spec.target.name}: one row, or up to {max_batch_rows:,} rows",
                name,
                {"200": _json_answer(_prediction_schema(spec), "the prediction", _RESPONSE_HEADERS), **refusals},
                body={"anyOf": [row, rows]},
                example=dict(spec.golden_rows[0]),
                headers=True,
            )
        },
        f"/invocations/{name}": {
            "post": _operation(
                "MLflow's scoring protocol; `inputs` may also hold one list per feature, all of one length",
                name,
                {"200": _json_answer(_invocations_schema(spec), "the predictions", _RESPONSE_HEADERS), **refusals},
                body=_scoring_schema(spec, row, max_batch_rows),
                example={"dataframe_records": [dict(row) for row in spec.golden_rows]},
                headers=True,
            )
        },
        f"/feedback/{name}": {
            "post": _operation(
                "The true labels of earlier answers, before or long after",
                name,
                {"202": _json_answer({"type": "object"}, "durably stored"), **refusals},
                body={
                    "anyOf": [
                        feedback,
                        {"type": "array", "items": feedback, "minItems": 1, "maxItems": max_batch_rows},
                    ]
                },
            )
        },
        f"/health/{name}": {
            "get": _operation(
                "Ready: a golden row was just inferred",
                name,
                {"200": _json_answer({"type": "object"}, "ready"), **_problems("503")},
            )
        },
        f"/metrics/{name}": {
            "get": _operation(
                "The live bento's Prometheus metrics",
                name,
                {"200": {"description": "Prometheus text", "content": {"text/plain": {}}}, **_problems("503")},
            )
        },
        f"/config/{name}": {
            "put": _operation(
                "Set a lasting split of the traffic",
                "control",
                {
                    "200": _json_answer({"type": "object"}, "the split in force"),
                    **_problems("400", "401", "403", "409", "415", "422", "503"),
                },
                body={
                    "type": "object",
                    "properties": {
                        "weights": {
                            "type": "object",
                            "properties": {
                                side: {"type": "integer", "minimum": 0, "maximum": 100}
                                for side in ("champion", "challenger")
                            },
                            "required": ["champion"],
                            "additionalProperties": False,
                            "description": "per cent; together 100",
                        }
                    },
                    "required": ["weights"],
                    "additionalProperties": False,
                },
                example={"weights": {"champion": 70, "challenger": 30}},
                key=True,
            )
        },
        f"/retrain/{name}": {
            "post": _operation(
                "Start the training DAG",
                "control",
                {
                    "202": _json_answer({"type": "object"}, "the run's id and URL"),
                    **_problems("400", "401", "403", "422", "503"),
                },
                body={
                    "type": "object",
                    "properties": {
                        "reason": {"enum": ["manual", "scheduled", "drift"], "default": "manual"},
                        "dataset": {
                            "type": ["string", "null"],
                            "pattern": "^[0-9a-f]{64}$",
                            "description": "SHA-256 of a snapshot in the lake; without it the newest validated one",
                        },
                    },
                    "additionalProperties": False,
                },
                body_required=False,
                key=True,
            )
        },
    }


def _operation(
    summary: str,
    tag: str,
    responses: dict[str, Any],
    *,
    body: dict[str, Any] | None = None,
    body_required: bool = True,
    example: Any = None,
    headers: bool = False,
    key: bool = False,
) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": summary, "tags": [tag], "responses": responses}
    if body is not None:
        media: dict[str, Any] = {"schema": body}
        if example is not None:
            media["example"] = example
        operation["requestBody"] = {"required": body_required, "content": {"application/json": media}}
    if headers:
        operation["parameters"] = _REQUEST_HEADERS
    if key:
        operation["security"] = [{"control_key": []}]
    return operation


def _json_answer(schema: dict[str, Any], description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": description, "content": {"application/json": {"schema": schema}}}
    return answer | ({"headers": headers} if headers else {})


def _problems(*statuses: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}


def _row_schema(spec: ModelSpec) -> dict[str, Any]:
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


def _scoring_schema(spec: ModelSpec, row: dict[str, Any], max_rows: int) -> dict[str, Any]:
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


def _target_schema(spec: ModelSpec) -> dict[str, Any]:
    if spec.target.classes is not None:
        return {"type": "string", "enum": list(spec.target.classes)}
    return {"type": "number", "minimum": -_FLOAT32_MAX, "maximum": _FLOAT32_MAX}


def _prediction_schema(spec: ModelSpec) -> dict[str, Any]:
    one = _target_schema(spec)
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


def _invocations_schema(spec: ModelSpec) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"predictions": {"type": "array", "items": _target_schema(spec)}},
        "required": ["predictions"],
    }
