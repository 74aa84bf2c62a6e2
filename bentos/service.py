"""The BentoML service of every bento: `bentoml serve` starts it, `predictor/` answers.

`predictor.front.Front` stands in front of BentoML's own app: BentoML's middlewares cost more than a
prediction does. The route below is for people who come by BentoML's own page and clients; it takes
the same way through the engine, so its answers are validated, logged and counted like all others.
"""

from __future__ import annotations

import time
from typing import Any

import bentoml
import msgspec
from bentoml.exceptions import BentoMLException, ServiceUnavailable, UnprocessableEntity

from predictor.hosting import FrontedService, engine, respawn_quickly
from predictor.problems import Problem
from predictor.requestid import request_id

__all__ = ["Predictor"]


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
    """Predictions of one model. Its fields and classes: `GET /schema`."""

    @bentoml.on_deployment
    def prepare_parent() -> None:
        respawn_quickly()

    @bentoml.api(route="/predict_rows")
    async def predict_rows(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """The same as `POST /predict` with `{"rows": [...]}`."""
        started = time.perf_counter()
        try:
            body = msgspec.json.encode({"rows": rows})
            answer = await engine().answer("predict", body, request_id(None), shadow=False, started=started)
        except Problem as problem:
            kind = {422: UnprocessableEntity, 503: ServiceUnavailable}.get(problem.status, BentoMLException)
            raise kind(problem.detail) from None
        result: dict[str, Any] = msgspec.json.decode(answer)
        return result
