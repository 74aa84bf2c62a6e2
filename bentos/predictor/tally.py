"""The account of what was answered, apart from the log of it: the two are compared every night.

One small file per process and UTC date, `<spool>/tally/<model>/<name>.tally`, is mapped into memory: a count
costs a fraction of a microsecond and survives any killed process. Its blocks are reserved when it is made, so a
disk that fills up later cannot take them away. The layout is that of `slipway.adapters.tally`: a JSON header
padded to 1024 bytes, then 24 hours of 8 counters, unsigned 64 bit, little-endian.

The lock works as with segments: as long as it is held the process may go on counting.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["LABELS", "LOST", "REFUSED", "SHADOW", "Tally"]

logger = logging.getLogger("predictor.tally")

# Answered requests; their rows; those of them that are in no log; rows refused as no log had room; answered rows of
# shadow requests; labels taken in. The reader's names for them are in `slipway.adapters.tally`.
REQUESTS, ANSWERED, LOST, REFUSED, SHADOW, LABELS = range(6)
_HEADER_BYTES = 1024
_COUNTERS = 8
_FILE_BYTES = 4096
_US_PER_HOUR = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEEP_HOURS = 1  # a request that was recorded before midnight may be counted after it


class _DayFile:
    """The counters of one date, mapped; `cells` are all hours one after the other."""

    def __init__(self, folder: Path, header: dict[str, Any], day: int) -> None:
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        date = (_EPOCH + timedelta(days=day)).date().isoformat()
        stem = folder / f"{date}-{now}-{os.getpid()}-{secrets.token_hex(4)}"
        content = msgspec.json.encode({**header, "date": date}).ljust(_HEADER_BYTES, b"\0")
        if len(content) > _HEADER_BYTES:
            raise ValueError("the header of a tally is too long")
        folder.mkdir(parents=True, exist_ok=True)
        aside = f"{stem}.tmp"
        self._fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            os.posix_fallocate(self._fd, 0, _FILE_BYTES)
            os.pwrite(self._fd, content, 0)
            self._map = mmap.mmap(self._fd, _FILE_BYTES)
            os.rename(aside, f"{stem}.tally")
        except OSError:
            os.close(self._fd)
            os.unlink(aside)
            raise
        self._view = memoryview(self._map)
        self.cells = self._view[_HEADER_BYTES : _HEADER_BYTES + 24 * _COUNTERS * 8].cast("Q")

    def sync(self) -> None:
        self._map.flush()

    def close(self) -> None:
        self.cells.release()
        self._view.release()
        self._map.flush()
        self._map.close()
        os.close(self._fd)


class Tally:
    """Counts by the hour of the record's own time. All methods are for the event loop's thread, but `sync`."""

    def __init__(self, folder: Path, header: dict[str, Any]) -> None:
        self._folder = folder
        self._header = header
        self._days: dict[int, _DayFile] = {}
        self._hour = -1
        self._base = 0
        self._cells: Any = None
        self._unfiled: Counter[tuple[int, int]] = Counter()

    def open(self, ts_us: int) -> None:
        """Make sure that something of this time can be counted.

        Raises:
            OSError: the disk has no room for a new date's file.
        """
        hour = ts_us // _US_PER_HOUR
        if hour != self._hour:
            self._turn(hour)

    def add(self, counter: int, ts_us: int, number: int) -> None:
        """Count; never fails: what has no file yet is kept in memory until it has one."""
        hour = ts_us // _US_PER_HOUR
        if hour != self._hour:
            try:
                self._turn(hour)
            except OSError:
                self._unfiled[hour, counter] += number
                return
        self._cells[self._base + counter] += number

    def answered(self, ts_us: int, rows: int) -> None:
        """Count one answered request."""
        if ts_us // _US_PER_HOUR == self._hour:
            cells, base = self._cells, self._base
            cells[base + REQUESTS] += 1
            cells[base + ANSWERED] += rows
        else:
            self.add(REQUESTS, ts_us, 1)
            self.add(ANSWERED, ts_us, rows)

    def _turn(self, hour: int) -> None:
        day = hour // 24
        file = self._days.get(day)
        if file is None:
            file = self._days[day] = _DayFile(self._folder, self._header, day)
        self._hour, self._base, self._cells = hour, hour % 24 * _COUNTERS, file.cells

    def tick(self, now_us: int) -> None:
        """File what had no file, and let go of former dates."""
        for (hour, counter), number in list(self._unfiled.items()):
            try:
                self._turn(hour)
            except OSError:
                break
            self._cells[self._base + counter] += number
            del self._unfiled[hour, counter]
        current = now_us // _US_PER_HOUR
        for day in [day for day in self._days if (day + 1) * 24 + _KEEP_HOURS <= current]:
            if self._hour // 24 == day:
                self._hour = -1
            self._days.pop(day).close()

    def sync(self) -> None:
        """Make the counts safe against power loss; runs beside the event loop."""
        for file in list(self._days.values()):
            try:
                file.sync()
            except (OSError, ValueError) as error:  # ValueError: it was closed meanwhile, which syncs it too
                logger.debug("a tally could not be synced: %s", error)

    def close(self) -> None:
        """Nothing is counted afterwards."""
        self._hour = -1
        for day in list(self._days):
            self._days.pop(day).close()
