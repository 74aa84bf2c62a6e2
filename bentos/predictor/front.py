"""The ASGI app in front of BentoML's own: it answers the model's routes, everything else passes through.

The predict routes never touch BentoML's or Starlette's objects; that is what makes them fast.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from predictor.engine import Engine
from predictor.lane import Lane
from predictor.metrics import CONTENT_TYPE, Metrics
from predictor.problems import Problem, as_problem, overload, problem_body
from predictor.requestid import request_id

__all__ = ["Front"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
_PROBLEM = (b"content-type", b"application/problem+json")
_PREDICTING = ("predict", "invocations")
_POST_ROUTES = ("predict", "invocations", "feedback")
_GET_ROUTES = ("health", "metrics")
_DRAIN_FACTOR = 16


class Front:
    """Routes of one bento; each exists plainly and with the model's name, `/predict` and `/predict/iris`."""

    def __init__(self, inner: App, engine: Engine, settle: Callable[[], None] | None = None) -> None:
        """`settle` is called once everything is loaded."""
        self._inner = inner
        self._settle = settle
        self._engine = engine
        self._routes: dict[str, str] = {}
        self._identity: Headers = []
        self.lane = Lane(engine)
        self._learn_identity()

    def _learn_identity(self) -> None:
        engine = self._engine
        self._identity = [(b"x-model-version", engine.version.encode()), (b"x-slot", engine.slot.encode())]
        self._routes = {"/readyz": "health", "/schema": "schema"}
        for name in (*_POST_ROUTES, *_GET_ROUTES):
            self._routes[f"/{name}"] = self._routes[f"/{name}/{engine.model}"] = name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self._inner(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start before BentoML's app and stop after it, so that its routes always find a running engine."""

        async def receive_and_start() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self._engine.start()
                self._learn_identity()
                self.lane.open()
            return message

        async def stop_or_settle_and_send(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown"):
                await self._engine.stop()
            if message["type"] == "lifespan.startup.complete" and self._settle is not None:
                self._settle()
            await send(message)

        await self._inner(scope, receive_and_start, stop_or_settle_and_send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        identity = request_id(headers.get(b"x-request-id"))
        route = self._routes.get(scope["path"])
        shadow = False
        try:
            if route in _PREDICTING:
                shadow = headers.get(b"x-slipway-shadow") == b"1"
                body = await self._predict(route, scope, headers, identity, receive, started, shadow)
                await self._send(send, identity[1], 200, _JSON, body)
            elif route is not None:
                await self._other(route, scope, headers, identity[1], receive, send)
            else:
                await self._unknown(scope, identity[1], receive, send)
        except _DisconnectedError:
            pass  # nobody is left to answer
        except Exception as error:
            problem = as_problem(error, identity[1])
            if route in _PREDICTING:
                self._engine.metrics.failed(problem, shadow)
            await self._send_problem(send, identity[1], problem)

    async def _predict(
        self,
        route: str,
        scope: Scope,
        headers: dict[bytes, bytes],
        identity: tuple[bytes, str],
        receive: Receive,
        started: float,
        shadow: bool,
    ) -> bytes:
        engine, metrics = self._engine, self._engine.metrics
        engine.turns.admit(started)
        if metrics.in_flight >= engine.config.max_concurrency:
            raise overload("too many requests in work")
        metrics.in_flight += 1
        held = _Held(metrics, engine.config.max_in_flight_bytes)
        try:
            body = await self._json_body(scope, headers, receive, held)
            return await engine.answer(route, body, identity, shadow, started)
        finally:
            held.release()
            metrics.in_flight -= 1

    async def _other(
        self, route: str, scope: Scope, headers: dict[bytes, bytes], identity: str, receive: Receive, send: Send
    ) -> None:
        engine = self._engine
        if route == "feedback":
            count = await engine.feedback(await self._json_body(scope, headers, receive))
            await self._send(send, identity, 202, _JSON, msgspec.json.encode({"accepted": count}))
            return
        if scope["method"] not in ("GET", "HEAD"):
            raise Problem(405, "method", "only GET is possible here", headers=[(b"allow", b"GET, HEAD")])
        if route == "metrics":
            await self._send(send, identity, 200, (b"content-type", CONTENT_TYPE), engine.render_metrics())
            return
        if route == "schema":
            await self._send(send, identity, 200, _JSON, msgspec.json.encode(engine.describe()))
            return
        if not engine.check_golden():
            raise Problem(503, "not_ready", f"not ready: {engine.problem}", headers=[(b"retry-after", b"1")])
        answer = {"status": "ready", "model": engine.model, "model_version": engine.version, "slot": engine.slot}
        await self._send(send, identity, 200, _JSON, msgspec.json.encode(answer))

    async def _unknown(self, scope: Scope, identity: str, receive: Receive, send: Send) -> None:
        first = scope["path"].split("/", 2)[1] if scope["path"].startswith("/") else ""
        if first in _POST_ROUTES or first in _GET_ROUTES:
            raise Problem(404, "unknown_model", f"this server serves {self._engine.model} and no other model")

        async def send_with_identity(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(b"x-request-id", identity.encode()), *self._identity]
                message = {**message, "headers": [*message.get("headers", []), *own]}
            await send(message)

        await self._inner(scope, receive, send_with_identity)

    async def _json_body(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, held: _Held | None = None
    ) -> bytes:
        if scope["method"] != "POST":
            raise Problem(405, "method", "only POST is possible here", headers=[(b"allow", b"POST")])
        content_type = headers.get(b"content-type", b"")
        if content_type != b"application/json" and not _is_json(content_type):
            raise Problem(415, "media_type", "the content type must be application/json")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise Problem(415, "media_type", "the body must not be compressed")
        limit = self._engine.config.max_body_bytes
        chunks: list[bytes] = []
        size = int(headers.get(b"content-length", b"0"))
        if size > limit:
            await _drain(receive, limit)
            raise _too_large(limit)
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _DisconnectedError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                if message.get("more_body"):
                    await _drain(receive, limit)
                raise _too_large(limit)
            if held is not None and not held.take(len(chunk)):
                if message.get("more_body"):
                    chunks.clear()
                    await _drain(receive, limit)
                raise overload("too many bytes of requests in work")
            if not message.get("more_body"):
                return b"".join((*chunks, chunk)) if chunks else chunk
            chunks.append(chunk)

    async def _send_problem(self, send: Send, identity: str, problem: Problem) -> None:
        await self._send(send, identity, problem.status, _PROBLEM, problem_body(problem, identity), problem.headers)

    async def _send(
        self,
        send: Send,
        identity: str,
        status: int,
        content_type: tuple[bytes, bytes],
        body: bytes,
        more: Any = (),
    ) -> None:
        headers = [
            content_type,
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", identity.encode()),
            *self._identity,
            *more,
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class _Held:
    """The bytes of one request's body, as long as it is in work."""

    def __init__(self, metrics: Metrics, limit: int) -> None:
        self._metrics, self._limit = metrics, limit
        self._bytes = 0

    def take(self, size: int) -> bool:
        """Whether there is room; a body that is alone in work always fits."""
        others = self._metrics.in_flight_bytes - self._bytes
        if others > 0 and others + self._bytes + size > self._limit:
            return False
        self._bytes += size
        self._metrics.in_flight_bytes += size
        return True

    def release(self) -> None:
        self._metrics.in_flight_bytes -= self._bytes


class _DisconnectedError(Exception):
    """The client went away before its request was whole."""


def _is_json(content_type: bytes) -> bool:
    kind, _, parameters = content_type.lower().partition(b";")
    charset = parameters.replace(b" ", b"").replace(b'"', b"")
    return kind.strip() == b"application/json" and (b"charset=" not in charset or b"charset=utf-8" in charset)


async def _drain(receive: Receive, limit: int) -> None:
    """Read on past a body that is too large, up to some multiple of what is allowed.

    A client that is still sending when its connection is closed sees a reset and never the 413.
    """
    seen = 0
    while seen <= _DRAIN_FACTOR * limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _DisconnectedError
        seen += len(message.get("body", b""))
        if not message.get("more_body"):
            return


def _too_large(limit: int) -> Problem:
    return Problem(413, "too_large", f"the body is larger than {limit} bytes")
