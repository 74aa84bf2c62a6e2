"""The HTTP protocol of a bento's connections: uvicorn's own, with a fast lane for small predictions.

A request whose head shows that the lane can answer it never becomes an ASGI task: its body is collected, and when it is
whole the lane's answer is written at once. Parsing stays with httptools. Everything else, a request that says anything
unusual included, goes uvicorn's way unchanged.
"""

from __future__ import annotations

import time
from asyncio import TimerHandle
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from predictor.lane import Lane

__all__ = ["LaneProtocol"]

_PLAIN_TYPE = b"application/json"
_LINGER_SECONDS = 0.5


class LaneProtocol(HttpToolsProtocol):
    """One connection. Use a subclass with its `lane` set."""

    lane: ClassVar[Lane]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._route: str | None = None
        self._body = b""
        self._given_id: bytes | None = None
        self._shadow = False
        self._started = 0.0
        self._closing = False
        self._idle_timer: TimerHandle | None = None
        self._last_used = 0.0

    # -- parser callbacks ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        if self._takes_lane():
            return
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()  # makes the scope, which the lane does without
        self.url, self.expect_100_continue = url, expect
        self.headers.extend(headers)
        super().on_headers_complete()
        if self._closing and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if self._route is None:
            super().on_body(body)
        else:
            self._body = self._body + body if self._body else body

    def on_message_complete(self) -> None:
        route = self._route
        if route is None:
            super().on_message_complete()
            return
        self._route, body, self._body = None, self._body, b""
        if self.transport.is_closing():
            return
        answer = self.lane.answer(
            route, body, self._given_id, self._shadow, self._started, self.server_state.default_headers
        )
        self.transport.write(answer)
        self.server_state.total_requests += 1
        self._last_used = self._started
        if self._closing:
            self.transport.close()
        elif self._idle_timer is None:
            self._watch_idle(self.timeout_keep_alive)

    def _takes_lane(self) -> bool:
        route = self.lane.route(self.url)
        parser, cycle = self.parser, self.cycle
        if (
            route is None
            or (cycle is not None and not cycle.response_complete)  # answers leave in the order of their requests
            or self.flow.write_paused
            or self._closing
            or self.expect_100_continue
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
        ):
            return False
        length = content_type = given_id = None
        shadow = False
        for name, value in self.headers:
            if name == b"content-length":
                length = value
            elif name == b"content-type":
                content_type = value
            elif name == b"x-request-id":
                given_id = value
            elif name == b"x-slipway-shadow":
                shadow = value == b"1"
            elif name == b"content-encoding" or name == b"transfer-encoding":
                return False
        if content_type != _PLAIN_TYPE or length is None or int(length) > self.lane.max_body_bytes:
            return False
        self._route, self._given_id, self._shadow = route, given_id, shadow
        self._started = time.perf_counter()
        return True

    # -- idle connections and the end ------------------------------------------------------------------

    def _watch_idle(self, seconds: float) -> None:
        """One timer for many answers: making and cancelling one for each costs as much as a tree."""
        self._idle_timer = self.loop.call_later(seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self._idle_timer = None
        if self.transport.is_closing():
            return
        idle = time.perf_counter() - self._last_used
        busy = self._route is not None or (self.cycle is not None and not self.cycle.response_complete)
        if busy or idle < self.timeout_keep_alive:
            self._watch_idle(self.timeout_keep_alive - (0 if busy else idle))
        else:
            self.transport.close()

    def on_response_complete(self) -> None:
        self._last_used = time.perf_counter()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._route = None
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops: what has been sent already is still answered.

        A client may write on an idle connection before it learns that the server closes it, so an idle one stays open
        for a moment; a request that comes then is answered with `connection: close`.
        """
        if self._closing:
            return
        self._closing = True
        if self.cycle is not None and not self.cycle.response_complete:
            super().shutdown()
        elif self._route is None:
            self.loop.call_later(_LINGER_SECONDS, self._close_unless_busy)

    def _close_unless_busy(self) -> None:
        if self._route is None and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
