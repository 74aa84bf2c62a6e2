"""The playground's way to a model: through the gateway, as every client goes, so what it sends is logged as traffic."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import JSONResponse

from slipway_control.access import Caller, SlipwayDep, actor
from slipway_control.api import Model, needs_json
from slipway_control.problems import problem

__all__ = ["router"]

router = APIRouter(prefix="/api/play", tags=["play"])
_MAY_PLAY = actor("play")
Plays = Annotated[Caller, _MAY_PLAY]
_MAX_BYTES = 1024 * 1024


async def _body(request: Request) -> bytes:
    raw = await request.body()
    if len(raw) > _MAX_BYTES:
        raise HTTPException(413, "the playground sends at most 1 MiB")
    return raw


Body = Annotated[bytes, Depends(_body)]


@router.post("/{model}/predict", dependencies=[_MAY_PLAY, Depends(needs_json)], response_model=None)
def predict(model: Model, slipway: SlipwayDep, who: Plays, body: Body) -> Any:
    """One prediction by the live version, logged like every other."""
    return _through(slipway, "predict", model, body)


@router.post("/{model}/feedback", dependencies=[_MAY_PLAY, Depends(needs_json)], response_model=None)
def feedback(model: Model, slipway: SlipwayDep, who: Plays, body: Body) -> Any:
    """The true label of an answered request; it may be trained on, so it is in the audit."""
    try:
        detail = json.loads(body)
    except ValueError:
        return problem(400, "the body is not valid JSON")

    def send() -> JSONResponse:
        return _through(slipway, "feedback", model, body)

    return slipway.noted("feedback", model, {"feedback": detail}, send, actor=who.name, via=who.via)


def _through(slipway: Any, route: str, model: str, raw: bytes) -> JSONResponse:
    status, answer, headers = slipway.through_gateway(route, model, raw)
    kept = {name: headers[name] for name in ("x-model-version", "x-slot", "x-request-id") if name in headers}
    return JSONResponse(answer, status_code=status, headers=kept)
