"""The agent's HTTP face: a bearer token, seven verbs, problem details for every error."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from slipway.agent.engine import Engine
from slipway.agent.images import Images
from slipway.agent.requests import BuildImage, DrainSlot, StartSlot, StopSlot, TrimImages
from slipway.agent.slots import Slots
from slipway.errors import ArtefactError, ConflictError, SlipwayError, StackError

__all__ = ["create_app"]

_log = logging.getLogger("slipway.agent")
_MAX_BODY_BYTES = 4096
_MIN_TOKEN_LENGTH = 16

_Message = MutableMapping[str, Any]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]


def _problem(status: int, detail: str, kind: str = "", errors: list[dict[str, str]] | None = None) -> JSONResponse:
    title = HTTPStatus(status).phrase
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    body |= {"kind": kind} if kind else {}
    body |= {"errors": errors} if errors else {}
    answer = JSONResponse(body, status, media_type="application/problem+json")
    if status == HTTPStatus.UNAUTHORIZED:
        answer.headers["www-authenticate"] = "Bearer"
    return answer


class _Guard:
    """In front of everything: nobody without the token gets so far that a body is read."""

    def __init__(self, app: _App, token: str) -> None:
        self._app, self._expected = app, f"Bearer {token}".encode()

    async def __call__(self, scope: _Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"authorization", b"")
        if scope["path"] != "/health" and not hmac.compare_digest(given, self._expected):
            await _problem(401, "the slot agent needs its bearer token")(scope, receive, send)
        elif _is_large(headers):
            await _problem(413, f"a request says its length, and has at most {_MAX_BODY_BYTES} bytes")(
                scope, receive, send
            )
        else:
            await self._app(scope, receive, send)


def _is_large(headers: dict[bytes, bytes]) -> bool:
    length = headers.get(b"content-length", b"0")
    return b"transfer-encoding" in headers or not length.isdigit() or int(length) > _MAX_BODY_BYTES


def create_app(engine: Engine, slots: Slots, images: Images, token: str) -> FastAPI:
    """The app.

    Raises:
        StackError: the token is missing or too short to be one.
    """
    if len(token) < _MIN_TOKEN_LENGTH:
        raise StackError("the slot agent starts only with a token; `slipway up` or `make compose-secrets` makes one")
    app = FastAPI(title="Slipway slot agent", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_Guard, token=token)
    _install_errors(app)

    @app.get("/health")
    def health() -> dict[str, str]:
        engine.ping()
        return {"status": "ok"}

    @app.get("/slots")
    def list_slots() -> dict[str, Any]:
        return {"slots": [asdict(slot) for slot in slots.list()]}

    @app.post("/slots/start")
    def start(wish: StartSlot) -> dict[str, Any]:
        return asdict(slots.start(wish))

    @app.post("/slots/drain")
    def drain(wish: DrainSlot) -> dict[str, Any]:
        slots.drain(wish)
        return {"model": wish.model, "slot": wish.slot}

    @app.post("/slots/stop")
    def stop(wish: StopSlot) -> dict[str, Any]:
        slots.stop(wish)
        return {"model": wish.model, "slot": wish.slot}

    @app.get("/images")
    def list_images() -> dict[str, Any]:
        return {"images": [asdict(image) for image in images.list()]}

    @app.post("/images/build")
    def build(wish: BuildImage) -> dict[str, Any]:
        with images.held(wish.model, wish.version, wish.digest) as image:
            return {"model": wish.model, "version": wish.version, "image": image.id}

    @app.post("/images/trim")
    def trim(wish: TrimImages) -> dict[str, Any]:
        return {"removed": images.trim(wish.model)}

    return app


def _install_errors(app: FastAPI) -> None:
    @app.exception_handler(SlipwayError)
    async def slipway_error(request: Request, error: SlipwayError) -> JSONResponse:
        _log.warning("%s: %s", request.url.path, error)
        status = 409 if isinstance(error, ArtefactError | ConflictError) else 503
        return _problem(status, str(error), kind=type(error).__name__)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        return _problem(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        fields = [
            {"path": ".".join(str(part) for part in item["loc"] if part != "body"), "message": str(item["msg"])}
            for item in error.errors()
        ]
        detail = "; ".join(f"{field['path'] or 'body'}: {field['message']}" for field in fields)
        return _problem(422, detail, errors=fields)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.exception("%s failed", request.url.path, exc_info=error)
        return _problem(503, "the slot agent could not do this; its log has the reason")
