"""The spool: what was answered, on this machine's disk before the answer leaves.

`append` is a plain `write` to the page cache (about two microseconds) and safe against any killed
process. A single thread does the slow part, fsync and sealing, in order. Sealed segments belong to the
keeper, which turns each into one Parquet file.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from predictor.segment import Segment, frame

__all__ = ["Budget", "Spool", "SpoolFullError", "SpoolLimits"]

logger = logging.getLogger("predictor.spool")

_US_PER_DAY = 86_400_000_000
_SCAN_SECONDS = 1.0
# What the shipper keeps for a person to look at; it must not end in refused requests.
_SET_ASIDE = ".damaged"


class SpoolFullError(OSError):
    """The spool holds as much as it may; the keeper has fallen behind or is not running."""


@dataclass(frozen=True)
class SpoolLimits:
    """When a segment is sealed and how often written rows are fsynced (0: the writer waits for it)."""

    segment_max_bytes: int
    segment_max_age_seconds: float
    fsync_interval_ms: int


class Budget:
    """Bytes in the whole spool folder, of all models and workers: counted now and then, estimated in between.

    Damaged segments that were set aside do not count.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._counted = 0
        self._since = 0
        self._scanned_at = float("-inf")

    @property
    def used(self) -> int:
        return self._counted + self._since

    @property
    def full(self) -> bool:
        return self.used >= self._max_bytes

    def claim_scan(self) -> bool:
        """Whether a count is due; if so it is the caller's to do."""
        now = time.monotonic()
        due = now - self._scanned_at >= _SCAN_SECONDS
        if due:
            self._scanned_at = now
        return due

    def spend(self, size: int) -> None:
        self._since += size

    def scan(self) -> None:
        """Count again; touches every segment's directory entry, so it runs beside the event loop."""
        before = self._since
        self._counted = _folder_bytes(self._folder)
        self._since -= before


def _folder_bytes(folder: Path) -> int:
    total = 0
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # the keeper removes segments while we count
                if entry.is_dir(follow_symlinks=False):
                    total += _folder_bytes(Path(entry.path))
                elif not entry.name.endswith(_SET_ASIDE):
                    total += entry.stat(follow_symlinks=False).st_size
    return total


class Spool:
    """One kind of record (`predictions` or `labels`) of one model, written by this process alone.

    All methods are for the event loop's thread.
    """

    def __init__(self, folder: Path, header: dict[str, Any], limits: SpoolLimits, budget: Budget) -> None:
        self._folder = folder
        self._header = msgspec.json.encode(header)
        self._limits = limits
        self._budget = budget
        self._segment: Segment | None = None
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._appended = 0
        self._durable = 0
        self._lost_sync: OSError | None = None
        self._syncing: asyncio.Task[None] | None = None

    def append(self, payload: bytes, ts_us: int) -> None:
        """Write one record.

        Raises:
            SpoolFullError: the folder's budget is used up.
            OSError: the disk refused; nothing of the record is in the spool.
        """
        if self._budget.full:
            raise SpoolFullError(errno.ENOSPC, "the spool is full")
        data = frame(payload)
        day = ts_us // _US_PER_DAY
        segment = self._segment
        if segment is None or segment.day != day or segment.size + len(data) > self._limits.segment_max_bytes:
            self.seal()
            segment = self._segment = Segment(self._folder, self._header, day, time.monotonic())
            self._budget.spend(segment.size)
        segment.append(data)
        self._budget.spend(len(data))
        self._appended += 1

    async def durable(self) -> None:
        """Wait until every record appended so far is fsynced; concurrent callers share one fsync.

        Raises:
            OSError: the disk could not keep it.
        """
        target = self._appended
        while self._durable < target:
            if self._syncing is None:
                self._syncing = asyncio.create_task(self._sync())
            await asyncio.shield(self._syncing)

    async def _sync(self) -> None:
        appended, segment = self._appended, self._segment
        try:
            # Earlier segments are sealed, and fsynced, by the same thread before this runs.
            await asyncio.get_running_loop().run_in_executor(self._disk, segment.sync if segment else _nothing)
            if self._lost_sync is not None:
                error, self._lost_sync = self._lost_sync, None
                raise error
            self._durable = appended
        finally:
            self._syncing = None

    def tick(self) -> None:
        """Called several times a second: seal by age and date, also when idle; fsync; count the folder's bytes."""
        segment = self._segment
        if segment is not None:
            aged = time.monotonic() - segment.opened >= self._limits.segment_max_age_seconds
            if aged or time.time_ns() // 1000 // _US_PER_DAY != segment.day:
                self.seal()
        if self._durable < self._appended and self._syncing is None and self._limits.fsync_interval_ms:
            self._syncing = asyncio.create_task(self._sync())
            self._syncing.add_done_callback(_report)
        if self._budget.claim_scan():
            self._disk.submit(self._budget.scan)

    def beside(self, work: Callable[[], None]) -> None:
        """Run something in the disk thread, after what was handed to it before."""
        self._disk.submit(work)

    def seal(self) -> None:
        """Hand the open segment to the disk thread, to be sealed; the next record opens a new one."""
        segment, self._segment = self._segment, None
        if segment is not None:
            self._disk.submit(self._seal, segment)

    def _seal(self, segment: Segment) -> None:
        try:
            segment.seal()
        except OSError as error:
            # Its lock is released, so the keeper seals what is on the disk as it does for a killed process.
            self._lost_sync = error
            logger.error("a segment could not be sealed: %s", error.strerror)

    def close(self) -> None:
        """Seal and wait until the disk has everything."""
        self.seal()
        self._disk.shutdown(wait=True)


def _nothing() -> None:
    return None


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the prediction log could not be fsynced: %s", error)
