"""RFC 9457 problem details for every error of the control API."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from slipway.errors import ConflictError, DataError, NotFoundError, SlipwayError, SpecError

__all__ = ["install"]

log = logging.getLogger("slipway.control")
_STATUS: tuple[tuple[type[SlipwayError], int], ...] = (
    (NotFoundError, 404),
    (ConflictError, 409),
    (DataError, 422),
    (SpecError, 422),
    (SlipwayError, 503),
)


def problem(status: int, detail: str, errors: list[dict[str, Any]] | None = None) -> JSONResponse:
    """One problem document; `errors` lists the invalid fields with their paths."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if errors:
        body["errors"] = errors
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


def page(request: Request, status: int, detail: str) -> HTMLResponse:
    """The same for people, with a way back."""
    from slipway_control.rendering import templates

    base = request.scope.get("root_path", "").rstrip("/")
    html = templates().get_template("error.html").render(status=status, detail=detail, base=base)
    return HTMLResponse(html, status_code=status)


def _for_people(request: Request) -> bool:
    """Whether a person looks at a page, and not a program at an answer."""
    return "text/html" in request.headers.get("accept", "") and "/api/" not in request.url.path


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem document, or a page for people; no trace and no path leaves the server."""

    @app.exception_handler(SlipwayError)
    async def slipway_error(request: Request, error: SlipwayError) -> Response:
        status = next(status for kind, status in _STATUS if isinstance(error, kind))
        return page(request, status, str(error)) if _for_people(request) else problem(status, str(error))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        if _for_people(request) and error.status_code in (403, 404):
            return page(request, error.status_code, str(error.detail))
        answer = problem(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        found = error.errors()
        if any(item["type"] == "json_invalid" for item in found):
            return problem(400, "the body is not valid JSON")
        fields = [
            {"path": ".".join(str(part) for part in item["loc"] if part != "body"), "message": item["msg"]}
            for item in found
        ]
        return problem(422, "; ".join(f"{field['path'] or 'body'}: {field['message']}" for field in fields), fields)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.exception("control request failed", exc_info=error, extra={"path": request.url.path})
        return problem(503, "the control API could not do this; its log has the reason")
