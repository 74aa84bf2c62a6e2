"""The accounted log: every answered prediction and every label, in the spool before the reply is sent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from predictor.artefacts import Artefacts
from predictor.config import Config
from predictor.metrics import Metrics
from predictor.model import Outcome
from predictor.problems import Problem
from predictor.schema import Row
from predictor.spool import Budget, Spool, SpoolLimits
from predictor.tally import LABELS, LOST, REFUSED, SHADOW, Tally

__all__ = ["Label", "PredictionLog", "Record"]

logger = logging.getLogger("predictor.log")

_SYNC_COUNTS_SECONDS = 1.0

Label = tuple[bytes, int, str | float]
"""Request id (16 bytes), row in the request, label."""


class Record(NamedTuple):
    """One answered request as it is logged: all its rows, and the time that they are filed under."""

    payload: bytes
    ts_us: int
    rows: int
    shadow: bool


def _log_full() -> Problem:
    detail = "predictions cannot be logged at the moment, so none are given"
    return Problem(503, "log_full", detail, headers=[(b"retry-after", b"5")])


class PredictionLog:
    """Writes predictions and labels of one model; without a spool folder it only counts.

    Attributes:
        waits_for_disk: a reply has to wait for `durable` too.
    """

    def __init__(self, config: Config, artefacts: Artefacts, slot: str, metrics: Metrics) -> None:
        self._metrics = metrics
        self._refuse = config.spool_when_full == "refuse"
        self.waits_for_disk = config.fsync_interval_ms == 0 and config.spool_dir is not None
        self._encode = msgspec.msgpack.Encoder().encode
        self._predictions: Spool | None = None
        self._labels: Spool | None = None
        self._budget: Budget | None = None
        self._tally: Tally | None = None
        self._timer: asyncio.Task[None] | None = None
        self._counts_at = 0.0
        self._tick_seconds = min(
            0.5, max(0.02, (config.fsync_interval_ms or 500) / 1000), config.spool_segment_max_age_seconds / 4
        )
        if config.spool_dir is not None:
            self._open(config.spool_dir, config, artefacts, slot)

    def _open(self, folder: Path, config: Config, artefacts: Artefacts, slot: str) -> None:
        schema, identity = artefacts.schema, artefacts.identity
        limits = SpoolLimits(
            config.spool_segment_max_bytes, config.spool_segment_max_age_seconds, config.fsync_interval_ms
        )
        budget = self._budget = Budget(folder, config.spool_max_bytes)
        budget.scan()
        header = {
            "format": 1,
            "kind": "predictions",
            "model": identity.model,
            "task": schema.task,
            "version": identity.version,
            "slot": slot,
            "features": list(schema.names),
            "feature_kinds": [feature.kind for feature in schema.features],
            "bento_tag": identity.bento_tag,
            "started_at": datetime.now(UTC).isoformat(),
        }
        self._predictions = Spool(folder / "predictions" / identity.model, header, limits, budget)
        self._labels = Spool(folder / "labels" / identity.model, header | {"kind": "labels"}, limits, budget)
        own = {key: header[key] for key in ("format", "model", "version", "slot")}
        self._tally = Tally(folder / "tally" / identity.model, own)

    @property
    def spool_bytes(self) -> int:
        return 0 if self._budget is None else self._budget.used

    def start(self) -> None:
        """Start sealing by age and fsyncing; needs the running event loop."""
        if self._predictions is not None:
            self._timer = asyncio.create_task(self._run_timer())

    async def stop(self) -> None:
        """Seal what is open. Nothing may be recorded afterwards."""
        if self._timer is not None:
            self._timer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._timer
        for spool in (self._predictions, self._labels):
            if spool is not None:
                await asyncio.to_thread(spool.close)
        if self._tally is not None:
            self._tally.close()

    async def _run_timer(self) -> None:
        while True:
            await asyncio.sleep(self._tick_seconds)
            for tick in self._ticks():
                try:
                    tick()
                except Exception:  # the timer must go on: without it idle segments never reach the lake
                    logger.exception("the spool's timer failed and goes on")

    def _ticks(self) -> Iterator[Callable[[], None]]:
        for spool in (self._predictions, self._labels):
            if spool is not None:
                yield spool.tick
        tally, spool = self._tally, self._predictions
        if tally is not None and spool is not None:
            yield lambda: tally.tick(time.time_ns() // 1000)
            now = time.monotonic()
            if now >= self._counts_at:
                self._counts_at = now + _SYNC_COUNTS_SECONDS
                yield lambda: spool.beside(tally.sync)

    def admit(self, rows: int) -> None:
        """Refuse before computing what could not be logged.

        Raises:
            Problem: 503; the spool is full and the policy is to refuse.
        """
        if self._refuse and self._budget is not None and self._budget.full:
            raise self._refused(time.time_ns() // 1000, rows)

    def _refused(self, ts_us: int, rows: int) -> Problem:
        self._metrics.refused_rows += rows
        if self._tally is not None:
            self._tally.add(REFUSED, ts_us, rows)
        return _log_full()

    def encode(self, request_id: bytes, rows: Sequence[Row], outcome: Outcome, shadow: bool, seconds: float) -> Record:
        """The record of one answered request; may be called in any thread."""
        ts_us = time.time_ns() // 1000
        entry = (request_id, ts_us, int(seconds * 1e6), shadow, rows, outcome.predictions, outcome.probabilities)
        return Record(self._encode(entry), ts_us, len(rows), shadow)

    def write(self, record: Record) -> None:
        """Write a record; the reply may leave when this returns, unless `waits_for_disk`.

        Raises:
            Problem: 503; it could not be written and the policy is to refuse.
        """
        spool, tally = self._predictions, self._tally
        if spool is None or tally is None:
            return
        try:
            tally.open(record.ts_us)
            spool.append(record.payload, record.ts_us)
        except OSError as error:
            self._lose(record, error)
        else:
            self._metrics.logged_rows += record.rows
        self._account(record, tally)

    async def write_durably(self, record: Record) -> None:
        """The same, and wait until it is fsynced.

        Raises:
            Problem: 503; it could not be written and the policy is to refuse.
        """
        spool, tally = self._predictions, self._tally
        if spool is None or tally is None:
            return
        try:
            tally.open(record.ts_us)
            spool.append(record.payload, record.ts_us)
            await spool.durable()
        except OSError as error:
            self._lose(record, error)
        else:
            self._metrics.logged_rows += record.rows
        self._account(record, tally)

    def _lose(self, record: Record, error: OSError) -> None:
        if self._refuse:
            raise self._refused(record.ts_us, record.rows) from error
        self._metrics.lost_rows += record.rows
        if self._tally is not None:
            self._tally.add(LOST, record.ts_us, record.rows)

    def _account(self, record: Record, tally: Tally) -> None:
        if record.shadow:
            tally.add(SHADOW, record.ts_us, record.rows)
        else:
            tally.answered(record.ts_us, record.rows)

    async def record_labels(self, labels: Sequence[Label]) -> None:
        """Write labels and wait until they are fsynced.

        Raises:
            Problem: 503; they could not be written, or there is no spool.
        """
        spool = self._labels
        if spool is None:
            raise Problem(503, "log_off", "feedback is off: this server was started without a spool folder")
        try:
            for request_id, row, label in labels:
                ts_us = time.time_ns() // 1000
                spool.append(self._encode((request_id, row, label, ts_us)), ts_us)
            await spool.durable()
        except OSError as error:
            raise Problem(
                503, "log_full", "labels cannot be stored at the moment", headers=[(b"retry-after", b"5")]
            ) from error
        self._metrics.labels += len(labels)
        if self._tally is not None:
            self._tally.add(LABELS, time.time_ns() // 1000, len(labels))
