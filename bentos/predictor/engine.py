"""One model, ready to answer: decode, infer, log, reply."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from predictor.artefacts import Artefacts, golden_difference, load_artefacts
from predictor.config import Config
from predictor.feedback import decode_feedback
from predictor.invocations import decode_invocations
from predictor.log import PredictionLog, Record
from predictor.metrics import Metrics
from predictor.model import ModelError, NotFiniteError, Outcome, join
from predictor.problems import Problem
from predictor.schema import Request, RequestDecoder
from predictor.turns import Turns

__all__ = ["Engine"]

logger = logging.getLogger("predictor")

_encode = msgspec.json.Encoder().encode

RequestId = tuple[bytes, str]
"""16 bytes, and the text."""


def _decode(route: str, body: bytes, decoder: RequestDecoder) -> Request:
    if route == "predict":
        return decoder.decode(body)
    return Request(decode_invocations(body, decoder), False)


def _infer(infer: Callable[[Any], Outcome], rows: Any) -> Outcome:
    try:
        return infer(rows)
    except NotFiniteError as error:
        index = error.args[0]
        message = "the model has no finite answer for it"
        errors = [{"path": f"rows[{index}]", "row": index, "message": message}]
        raise Problem(422, "invalid", f"row {index}: {message}", errors) from None


class Engine:
    """Answers for one bento; it loads in `start`, not when created, so that a bento that cannot load can say so.

    Attributes:
        problem: why no prediction is given, or None when ready.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.metrics = Metrics()
        self.problem: str | None = "starting"
        self.model = config.model or "unknown"
        self.version = config.version or "unknown"
        self.slot = config.slot
        self._artefacts: Artefacts | None = None
        self._classes: tuple[str, ...] | None = None
        self._identity = b""
        self._log: PredictionLog | None = None
        self._heavy = ThreadPoolExecutor(1, thread_name_prefix="batch")
        self.turns = Turns(config.max_queue_ms / 1000)

    # -- life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the artefacts and ask the golden rows. Never raises: what is wrong is kept in `problem`."""
        try:
            artefacts = load_artefacts(self.config.artefacts_dir, self.config.max_batch_rows)
            self._check_identity(artefacts)
            self._log = PredictionLog(self.config, artefacts, self.slot, self.metrics)
        except (ModelError, OSError) as error:
            self.problem = "the bento could not be loaded"
            logger.error("not ready: %s", error)
            return
        except Exception:  # an exit here would be repeated for ever; a server that says it is not ready is seen
            self.problem = "the bento could not be loaded"
            logger.exception("not ready")
            return
        self._artefacts = artefacts
        self._classes = artefacts.schema.target.classes
        identity = {"model": self.model, "model_version": self.version, "slot": self.slot}
        self._identity = _encode(identity)[1:-1]
        self._log.start()
        self.check_golden()

    def _check_identity(self, artefacts: Artefacts) -> None:
        identity, config = artefacts.identity, self.config
        if config.model not in (None, identity.model) or config.version not in (None, identity.version):
            raise ModelError(
                f"this bento is {identity.model} version {identity.version},"
                f" started as {config.model} version {config.version}"
            )
        self.model, self.version = identity.model, identity.version

    async def stop(self) -> None:
        """Finish batches in work and seal the log."""
        self.problem = "stopping"
        await asyncio.to_thread(self._heavy.shutdown, True)
        if self._log is not None:
            await self._log.stop()

    def check_golden(self) -> bool:
        """Infer the golden rows again; the result decides whether predictions are given."""
        artefacts = self._artefacts
        if artefacts is None or self.problem == "stopping":
            return False
        try:
            difference = golden_difference(artefacts.golden, artefacts.model.infer(artefacts.golden_rows))
            if difference is None:  # single rows take another way through the model
                single = join([artefacts.model.infer_one(row) for row in artefacts.golden_rows])
                difference = golden_difference(artefacts.golden, single)
        except Exception as error:  # a model may raise anything; whatever it is, it must not get traffic
            difference = f"{type(error).__name__}: {error}"
        if difference is not None:
            logger.error("not ready: %s", difference)
        self.problem = "the golden rows came out wrong" if difference else None
        return difference is None

    # -- requests --------------------------------------------------------------------------------

    async def answer(self, route: str, body: bytes, request_id: RequestId, shadow: bool, started: float) -> bytes:
        """The JSON answer to a body of `predict` or `invocations`; logged and counted when this returns.

        Raises:
            Problem: it is not answered.
        """
        log = self._ready()[1]
        if len(body) <= self.config.inline_bytes:
            content, record = self._compute(route, body, request_id, shadow, started)
        else:
            content, record = await self._compute_beside(route, body, request_id, shadow, started)
        if log.waits_for_disk:
            await log.write_durably(record)
        else:
            log.write(record)
        self.metrics.answered(record.rows, time.perf_counter() - started, shadow)
        return content

    def answer_now(self, route: str, body: bytes, request_id: RequestId, shadow: bool, started: float) -> bytes:
        """The same at once, for small bodies and when no fsync is waited for.

        Raises:
            Problem: it is not answered.
        """
        content, record = self._compute(route, body, request_id, shadow, started)
        self._ready()[1].write(record)
        self.metrics.answered(record.rows, time.perf_counter() - started, shadow)
        return content

    def _compute(
        self, route: str, body: bytes, request_id: RequestId, shadow: bool, started: float
    ) -> tuple[bytes, Record]:
        artefacts, log = self._ready()
        request = _decode(route, body, artefacts.decoder)
        rows = request.rows
        log.admit(len(rows))
        single = len(rows) == 1
        outcome = _infer(artefacts.model.infer_one, rows[0]) if single else _infer(artefacts.model.infer, rows)
        content = self._render(route, request, outcome, request_id[1])
        return content, log.encode(request_id[0], rows, outcome, shadow, time.perf_counter() - started)

    async def _compute_beside(
        self, route: str, body: bytes, request_id: RequestId, shadow: bool, started: float
    ) -> tuple[bytes, Record]:
        """The same in another thread, one batch after the other, so that small requests are answered in between."""
        artefacts, log = self._ready()
        beside = partial(asyncio.get_running_loop().run_in_executor, self._heavy)
        request = await beside(_decode, route, body, artefacts.decoder)
        log.admit(len(request.rows))

        def rest() -> tuple[bytes, Record]:
            outcome = _infer(artefacts.model.infer, request.rows)
            content = self._render(route, request, outcome, request_id[1])
            return content, log.encode(request_id[0], request.rows, outcome, shadow, time.perf_counter() - started)

        return await beside(rest)

    @property
    def answers_now(self) -> bool:
        """Whether `answer_now` may be used."""
        return self._log is not None and not self._log.waits_for_disk

    def _ready(self) -> tuple[Artefacts, PredictionLog]:
        if self.problem is not None or self._artefacts is None or self._log is None:
            raise Problem(503, "not_ready", f"not ready: {self.problem}", headers=[(b"retry-after", b"1")])
        return self._artefacts, self._log

    def _render(self, route: str, request: Request, outcome: Outcome, request_id: str) -> bytes:
        if route == "invocations":
            return _encode({"predictions": outcome.predictions})
        predictions, probabilities, classes = outcome.predictions, outcome.probabilities, self._classes
        answer: dict[str, Any] = {"prediction": predictions[0]} if request.single else {"predictions": predictions}
        if classes is not None and probabilities is not None:
            named = [dict(zip(classes, row, strict=True)) for row in probabilities]
            answer["probabilities"] = named[0] if request.single else named
        return b'{"request_id":"%b",%b,%b' % (request_id.encode(), self._identity, _encode(answer)[1:])

    async def feedback(self, body: bytes) -> int:
        """Store labels; how many, when they are durable.

        Raises:
            Problem: they are not stored.
        """
        artefacts, log = self._artefacts, self._log
        if artefacts is None or log is None:
            raise Problem(503, "not_ready", f"not ready: {self.problem}", headers=[(b"retry-after", b"1")])
        labels = decode_feedback(body, artefacts.schema, self.config.max_batch_rows)
        await log.record_labels(labels)
        return len(labels)

    # -- about itself ----------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Identity and schema of what is served.

        Raises:
            Problem: 503, it could not be loaded.
        """
        artefacts = self._artefacts
        if artefacts is None:
            raise Problem(503, "not_ready", f"not ready: {self.problem}")
        return {"identity": msgspec.to_builtins(artefacts.identity), "schema": msgspec.to_builtins(artefacts.schema)}

    def render_metrics(self) -> bytes:
        """The counters in Prometheus' text format."""
        spool_bytes = 0 if self._log is None else self._log.spool_bytes
        return self.metrics.render(self.model, self.version, self.slot, self.problem is None, spool_bytes)


def default_artefacts_dir() -> Path:
    """`artefacts/` beside the package, where a bento has it."""
    return Path(__file__).resolve().parents[1] / "artefacts"
