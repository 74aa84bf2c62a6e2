"""The fast lane: a whole HTTP answer made at once from a whole small request, without ASGI's messages and tasks.

It answers exactly what `front.Front` would answer; what it does not take, `Front` gets. `wire.py` decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from predictor.engine import Engine
from predictor.problems import Problem, as_problem, problem_body
from predictor.requestid import request_id
from predictor.turns import queue_too_long

__all__ = ["Lane"]

Headers = Sequence[tuple[bytes, bytes]]

_ROUTES = ("predict", "invocations")
_LATE = queue_too_long()
_NO_ID = b"00000000-0000-0000-0000-000000000000"


class Lane:
    """Answers of one engine as the bytes of an HTTP/1.1 response.

    Attributes:
        max_body_bytes: of larger bodies the work is done beside the event loop, so they do not belong here.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._routes: dict[bytes, str] = {}
        self._server_headers: Headers | None = None
        self._head = self._late = b""
        self.max_body_bytes = min(engine.config.inline_bytes, engine.config.max_body_bytes)

    def open(self) -> None:
        """Take requests from now on; called when the engine has loaded and knows its model's name."""
        if self._engine.answers_now:
            names = (f"/{route}{tail}" for route in _ROUTES for tail in ("", f"/{self._engine.model}"))
            self._routes = {name.encode(): name.split("/")[1] for name in names}

    def route(self, url: bytes) -> str | None:
        """The route of a request target that the lane takes."""
        return self._routes.get(url)

    def answer(
        self,
        route: str,
        body: bytes,
        given_id: bytes | None,
        shadow: bool,
        started: float,
        server_headers: Headers,
    ) -> bytes:
        """The response to one request, errors included; logged and counted when this returns.

        Args:
            given_id: the client's `x-request-id`.
            server_headers: what the server adds to every answer; the same object until it changes.
        """
        identity = request_id(given_id)
        if server_headers is not self._server_headers:
            self._prepare(server_headers)
        if self._engine.turns.late(started):
            self._engine.metrics.failed(_LATE, shadow)
            return self._late.replace(_NO_ID, identity[1].encode())
        try:
            content = self._engine.answer_now(route, body, identity, shadow, started)
        except Exception as error:
            problem = as_problem(error, identity[1])
            self._engine.metrics.failed(problem, shadow)
            return self._refusal(problem, identity[1])
        return b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            self._head,
            identity[1].encode(),
            len(content),
            content,
        )

    def _own(self) -> Headers:
        return (b"x-model-version", self._engine.version.encode()), (b"x-slot", self._engine.slot.encode())

    def _prepare(self, server_headers: Headers) -> None:
        """Once a second, with the date: what all answers share. A refusal under overload must cost next to nothing."""
        self._server_headers = server_headers
        self._head = _head(200, (*server_headers, (b"content-type", b"application/json"), *self._own()))
        self._late = self._refusal(_LATE, _NO_ID.decode())

    def _refusal(self, problem: Problem, identity: str) -> bytes:
        content = problem_body(problem, identity)
        headers = (
            *(self._server_headers or ()),
            (b"content-type", b"application/problem+json"),
            (b"content-length", b"%d" % len(content)),
            (b"x-request-id", identity.encode()),
            *self._own(),
            *problem.headers,
        )
        return _head(problem.status, headers) + b"\r\n" + content


def _head(status: int, headers: Headers) -> bytes:
    lines = (b"%b: %b\r\n" % header for header in headers)
    return b"HTTP/1.1 %d %b\r\n%b" % (status, HTTPStatus(status).phrase.encode(), b"".join(lines))
