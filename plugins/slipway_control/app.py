"""The cockpit and the control API as one app, mounted under `/slipway`: pages, `/api/…`, reports, static files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse

from slipway import __version__
from slipway_control import api, pages, play, reports
from slipway_control.access import LoginNeededError, public
from slipway_control.airflow_session import login_url
from slipway_control.assets import GuardedFiles
from slipway_control.headers import SecurityHeaders
from slipway_control.problems import install

__all__ = ["create_app"]

_STATIC = Path(__file__).parent / "static"


def create_app() -> FastAPI:
    """The app; every route of it needs a session, a key, or comes from the gateway."""
    app = FastAPI(
        title="Slipway control API",
        version=__version__,
        description="Reading needs a key's scope `read`; acting `train`, `release`, `traffic` or `play`.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    install(app)
    app.add_middleware(SecurityHeaders)

    @app.exception_handler(LoginNeededError)
    async def to_login(request: Request, _: LoginNeededError) -> RedirectResponse:
        return RedirectResponse(login_url(request), status_code=303)

    @app.get("/api/openapi.json", include_in_schema=False, dependencies=[Depends(public)])
    def openapi(document: dict[str, Any] = Depends(api.openapi_for)) -> JSONResponse:  # noqa: B008
        return JSONResponse(document)

    @app.get("/api/docs", include_in_schema=False, dependencies=[Depends(public)])
    def docs() -> HTMLResponse:
        # Relative addresses: the page is seen at the gateway's /docs as well as below Airflow.
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title="Slipway",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="docs/favicon.png",
        )

    for part in (api, play, pages, reports):
        app.include_router(part.router)

    import fastapi_offline

    swagger = GuardedFiles(Path(fastapi_offline.__file__).parent / "static")
    app.add_api_route("/api/docs/{path:path}", swagger, dependencies=[Depends(public)], include_in_schema=False)
    app.add_api_route(
        "/static/{version}/{path:path}", GuardedFiles(_STATIC), include_in_schema=False, dependencies=pages.READS
    )
    return app
