"""One model, ready to answer: decode, infer, log, reply."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from predictor.artefacts import Artefacts, golden_difference, load_artefacts
from predictor.config import Config
from predictor.feedback import decode_feedback
from predictor.invocations import decode_invocations
from predictor.log import PredictionLog
from predictor.metrics import Metrics
from predictor.model import ModelError, NotFiniteError, Outcome
from predictor.problems import Problem
from predictor.schema import Row

__all__ = ["Engine"]

logger = logging.getLogger("predictor")

_encode = msgspec.json.Encoder().encode


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
        self._log: PredictionLog | None = None
        self._heavy = ThreadPoolExecutor(1, thread_name_prefix="batch")

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
        except Exception as error:  # a model may raise anything; whatever it is, it must not get traffic
            difference = f"{type(error).__name__}: {error}"
        if difference is not None:
            logger.error("not ready: %s", difference)
        self.problem = "the golden rows came out wrong" if difference else None
        return difference is None

    # -- requests --------------------------------------------------------------------------------

    async def predict(self, body: bytes, request_id: tuple[bytes, str], shadow: bool, started: float) -> bytes:
        """The JSON answer to a `/predict` body; logged and counted when this returns.

        Raises:
            Problem: it is not answered.
        """
        artefacts = self._ready()
        request = artefacts.decoder.decode(body)
        outcome = await self._answer(artefacts, request.rows, request_id[0], shadow, started)
        classes = artefacts.schema.target.classes
        answer: dict[str, Any] = {
            "request_id": request_id[1],
            "model": self.model,
            "model_version": self.version,
            "slot": self.slot,
        }
        if request.single:
            answer["prediction"] = outcome.predictions[0]
        else:
            answer["predictions"] = outcome.predictions
        if classes is not None and outcome.probabilities is not None:
            named = [dict(zip(classes, row, strict=True)) for row in outcome.probabilities]
            answer["probabilities"] = named[0] if request.single else named
        return _encode(answer)

    async def invoke(self, body: bytes, request_id: tuple[bytes, str], shadow: bool, started: float) -> bytes:
        """The same in MLflow's scoring protocol.

        Raises:
            Problem: it is not answered.
        """
        artefacts = self._ready()
        rows = decode_invocations(body, artefacts.decoder)
        outcome = await self._answer(artefacts, rows, request_id[0], shadow, started)
        return _encode({"predictions": outcome.predictions})

    def _ready(self) -> Artefacts:
        if self.problem is not None or self._artefacts is None:
            raise Problem(503, "not_ready", f"not ready: {self.problem}", headers=[(b"retry-after", b"1")])
        return self._artefacts

    async def _answer(
        self, artefacts: Artefacts, rows: Sequence[Row], request_id: bytes, shadow: bool, started: float
    ) -> Outcome:
        log = self._log
        assert log is not None
        log.admit(len(rows))
        try:
            if len(rows) <= self.config.thread_rows:
                outcome = artefacts.model.infer(rows)
            else:
                loop = asyncio.get_running_loop()
                outcome = await loop.run_in_executor(self._heavy, artefacts.model.infer, rows)
        except NotFiniteError as error:
            index = error.args[0]
            raise Problem(
                422,
                "invalid",
                f"row {index}: the model has no finite answer for it",
                [{"path": f"rows[{index}]", "row": index, "message": "the model has no finite answer for it"}],
            ) from None
        seconds = time.perf_counter() - started
        await log.record(request_id, rows, outcome, shadow, seconds)
        self.metrics.answered(len(rows), seconds, shadow)
        return outcome

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
