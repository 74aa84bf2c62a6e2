"""The BentoML service of every bento: `bentoml serve` starts it, `predictor/` answers.

`predictor.front.Front` stands in front of BentoML's own app: BentoML's middlewares cost more than a
prediction does. The route below is for people who come by BentoML's own page and clients; it takes
the same way through the engine, so its answers are validated, logged and counted like all others.
"""

from __future__ import annotations

import ctypes
import logging
import signal
import sys
import time
from typing import Any

import bentoml
import msgspec
from _bentoml_sdk.service.factory import Service
from bentoml.exceptions import BentoMLException, ServiceUnavailable, UnprocessableEntity

from predictor.config import Config
from predictor.engine import Engine, default_artefacts_dir
from predictor.front import Front
from predictor.problems import Problem
from predictor.requestid import request_id

__all__ = ["Predictor"]

_PR_SET_PDEATHSIG = 1
_engine: Engine | None = None


def engine() -> Engine:
    """The engine of this process; the app starts it with the server's lifespan."""
    global _engine
    if _engine is None:
        _engine = Engine(Config.from_env(default_artefacts_dir()))
    return _engine


class FrontedService(Service[Any]):
    """A BentoML service whose ASGI app stands behind ours.

    `Service.to_asgi` is a private part of BentoML: the version is pinned, and a test fails when it moves.
    """

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> Any:
        _die_with_parent()
        # uvicorn asks each time a connection opens whether anybody listens to its access log.
        access_log = logging.getLogger("uvicorn.access")
        access_log.handlers, access_log.propagate = [], False
        return Front(super().to_asgi(is_main=is_main), engine())


def _die_with_parent() -> None:
    """A worker that outlived its killed parent would hold the port that the next one needs."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@bentoml.service(
    name="predictor",
    service_class=FrontedService,
    workers=1,
    traffic={"timeout": 30},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ".*"},
)
class Predictor:
    """Predictions of one model. Fields and classes: `GET /schema`."""

    @bentoml.api(route="/predict_rows")
    async def predict_rows(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The same as `POST /predict` with `{"rows": [...]}`."""
        started = time.perf_counter()
        try:
            body = msgspec.json.encode({"rows": rows})
            answer = await engine().predict(body, request_id(None), shadow=False, started=started)
        except Problem as problem:
            kind = {422: UnprocessableEntity, 503: ServiceUnavailable}.get(problem.status, BentoMLException)
            raise kind(problem.detail) from None
        result: dict[str, Any] = msgspec.json.decode(answer)
        return result
