"""The control API: what is live, the traffic split, retraining, and the gateway's documentation.

Endpoints are plain functions, so FastAPI runs them in its thread pool and a slow database holds up no event loop.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, model_validator

from slipway.wiring import Wiring, wiring
from slipway_control.problems import install

__all__ = ["create_app"]


class Weights(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    champion: int = Field(ge=0, le=100)
    challenger: int = Field(default=0, ge=0, le=100)

    @model_validator(mode="after")
    def _sum_to_all(self) -> Weights:
        if self.champion + self.challenger != 100:
            raise ValueError("the weights must sum to 100")
        return self


class Split(BaseModel):
    model_config = ConfigDict(extra="forbid")

    weights: Weights


class Retrain(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: Literal["manual", "scheduled", "drift"] = "manual"
    dataset: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


def _slipway() -> Wiring:
    return wiring()


Slipway = Annotated[Wiring, Depends(_slipway)]


def _needs_key(slipway: Slipway, x_api_key: Annotated[str | None, Header()] = None) -> str:
    if not x_api_key:
        raise HTTPException(401, "this route needs the control key in x-api-key", {"www-authenticate": "ApiKey"})
    if not hmac.compare_digest(x_api_key.encode(), slipway.settings.secret("control_key").encode()):
        raise HTTPException(403, "the control key is wrong")
    return "control-api"


def _needs_json(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "send application/json")


Actor = Annotated[str, Depends(_needs_key)]


def create_app() -> FastAPI:
    """The app, mounted under `/slipway`; all of its routes start with `/api`."""
    app = FastAPI(title="Slipway control API", docs_url=None, redoc_url=None, openapi_url=None)
    install(app)

    @app.get("/api/models/info")
    def models_info(slipway: Slipway) -> dict[str, Any]:
        return slipway.models_info()

    @app.get("/api/config")
    def config(slipway: Slipway) -> dict[str, Any]:
        return slipway.traffic_config()

    @app.put("/api/config/{model}", dependencies=[Depends(_needs_json)])
    def set_split(model: str, split: Split, slipway: Slipway, actor: Actor) -> dict[str, Any]:
        return slipway.set_split(model, split.weights.model_dump(), actor=actor, reason="PUT /config")

    @app.post("/api/retrain/{model}", status_code=202)
    def retrain(model: str, slipway: Slipway, actor: Actor, wish: Retrain | None = None) -> dict[str, Any]:
        wish = wish or Retrain()
        return slipway.start_training(model, wish.reason, wish.dataset, actor=actor)

    @app.get("/api/openapi.json")
    def openapi(slipway: Slipway) -> JSONResponse:
        return JSONResponse(slipway.openapi())

    @app.get("/api/docs")
    def docs() -> HTMLResponse:
        # Relative addresses: the page is seen at the gateway's /docs as well as below Airflow.
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="Slipway gateway",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
        )

    import fastapi_offline

    app.mount("/api/docs", StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static"))
    return app
