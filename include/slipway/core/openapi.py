"""The OpenAPI document of the gateway, with each model's real fields.

Pure: specs in, a JSON-able dictionary out. The bentos validate by the same spec, so a request that
fits this document is one that a bento accepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from slipway.core.openapi_schemas import (
    invocations_schema,
    prediction_schema,
    row_schema,
    scoring_schema,
    target_schema,
)
from slipway.spec import ModelSpec

__all__ = ["document"]

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
        schemas[f"{spec.name}_row"] = row_schema(spec)
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
    return {
        f"/predict/{name}": {"post": _predict(spec, max_batch_rows)},
        f"/invocations/{name}": {"post": _invocations(spec, max_batch_rows)},
        f"/feedback/{name}": {"post": _feedback(spec, max_batch_rows)},
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
        f"/config/{name}": {"put": _set_split()},
        f"/retrain/{name}": {"post": _retrain()},
    }


def _bento_refusals() -> dict[str, Any]:
    return _problems("400", "413", "415", "422", "429", "503")


def _row_reference(spec: ModelSpec) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{spec.name}_row"}


def _predict(spec: ModelSpec, max_batch_rows: int) -> dict[str, Any]:
    row = _row_reference(spec)
    rows = {
        "type": "object",
        "properties": {"rows": {"type": "array", "items": row, "minItems": 1, "maxItems": max_batch_rows}},
        "required": ["rows"],
        "additionalProperties": False,
    }
    return _operation(
        f"Predict {spec.target.name}: one row, or up to {max_batch_rows:,} rows",
        spec.name,
        {"200": _json_answer(prediction_schema(spec), "the prediction", _RESPONSE_HEADERS), **_bento_refusals()},
        body={"anyOf": [row, rows]},
        example=dict(spec.golden_rows[0]),
        headers=True,
    )


def _invocations(spec: ModelSpec, max_batch_rows: int) -> dict[str, Any]:
    return _operation(
        "MLflow's scoring protocol; `inputs` may also hold one list per feature, all of one length",
        spec.name,
        {"200": _json_answer(invocations_schema(spec), "the predictions", _RESPONSE_HEADERS), **_bento_refusals()},
        body=scoring_schema(spec, _row_reference(spec), max_batch_rows),
        example={"dataframe_records": [dict(row) for row in spec.golden_rows]},
        headers=True,
    )


def _feedback(spec: ModelSpec, max_batch_rows: int) -> dict[str, Any]:
    one = {
        "type": "object",
        "properties": {
            "request_id": {"type": "string", "format": "uuid"},
            "row": {"type": "integer", "minimum": 0, "maximum": _INT32_MAX, "default": 0},
            "label": target_schema(spec),
        },
        "required": ["request_id", "label"],
        "additionalProperties": False,
    }
    several = {"type": "array", "items": one, "minItems": 1, "maxItems": max_batch_rows}
    return _operation(
        "The true labels of earlier answers, before or long after",
        spec.name,
        {"202": _json_answer({"type": "object"}, "durably stored"), **_bento_refusals()},
        body={"anyOf": [one, several]},
    )


def _set_split() -> dict[str, Any]:
    champion = {"type": "integer", "minimum": 1, "maximum": 100}
    challenger = {"type": "integer", "minimum": 0, "maximum": 99}
    weights = {
        "type": "object",
        "properties": {"champion": champion, "challenger": challenger},
        "required": ["champion"],
        "additionalProperties": False,
        "description": "per cent; together 100",
    }
    return _operation(
        "Set a lasting split of the traffic",
        "control",
        {
            "200": _json_answer({"type": "object"}, "the split in force"),
            **_problems("400", "401", "403", "409", "415", "422", "503"),
        },
        body={
            "type": "object",
            "properties": {"weights": weights},
            "required": ["weights"],
            "additionalProperties": False,
        },
        example={"weights": {"champion": 70, "challenger": 30}},
        key=True,
    )


def _retrain() -> dict[str, Any]:
    dataset = {
        "type": ["string", "null"],
        "pattern": "^[0-9a-f]{64}$",
        "description": "SHA-256 of a snapshot in the lake; without it the newest validated one",
    }
    return _operation(
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
                "dataset": dataset,
                "traffic": {
                    "type": "boolean",
                    "default": False,
                    "description": "train on the labelled traffic of the last window too; not with a dataset",
                },
            },
            "additionalProperties": False,
        },
        body_required=False,
        key=True,
    )


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
