"""The bentos' account of what they answered, as the keeper reads it; the layout is written by `predictor.tally`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

__all__ = ["COUNTERS", "HourCount", "Tallies", "TallyFile"]

COUNTERS = ("requests", "answered", "lost", "refused", "shadow", "labels")
"""In the order of the file; the last two of its eight places are not used."""

_HEADER_BYTES = 1024
_HOUR = struct.Struct("<8Q")
_STRAY_SECONDS = 60.0


@dataclass(frozen=True)
class HourCount:
    """What one process counted in one hour of a date (0 to 23, UTC)."""

    hour: int
    counts: Mapping[str, int]


@dataclass(frozen=True)
class TallyFile:
    """The counts of one process on one UTC date; hours without any are left out.

    Attributes:
        closed: nobody counts in it any more.
    """

    path: Path
    name: str
    model: str
    version: str
    slot: str
    date: date
    hours: tuple[HourCount, ...]
    closed: bool


class Tallies:
    """All tally files below a spool folder, `tally/<model>/<name>.tally`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> list[TallyFile]:
        """Every file as it is now, oldest first. Files that cannot be read are left out; see `damaged`."""
        return list(self._readable())

    def damaged(self) -> list[Path]:
        """Files that are no tally."""
        return [path for path in self._paths("tally") if _load(path) is None and path.exists()]

    def remove(self, tally: TallyFile) -> None:
        """Delete a closed file whose counts are in the lake; deleting twice is fine."""
        tally.path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete what a process left that was killed while it made a file; nothing was ever counted in it."""
        for path in self._paths("tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STRAY_SECONDS and _released(path):
                    path.unlink()

    def _readable(self) -> Iterator[TallyFile]:
        for path in self._paths("tally"):
            found = _load(path)
            if found is not None:
                yield found

    def _paths(self, suffix: str) -> list[Path]:
        return sorted(self.folder.glob(f"tally/*/*.{suffix}"), key=lambda path: path.name)


def _load(path: Path) -> TallyFile | None:
    try:
        # First the lock, then the counts: what is counted after the lock came free would be missed.
        closed = _released(path)
        content = path.read_bytes()
        header = json.loads(content[:_HEADER_BYTES].rstrip(b"\0"))
        cells = [_HOUR.unpack_from(content, _HEADER_BYTES + hour * _HOUR.size) for hour in range(24)]
        named = (str(header["model"]), str(header["version"]), str(header["slot"]))
        day = date.fromisoformat(header["date"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, struct.error):
        return None
    hours = tuple(
        HourCount(hour, dict(zip(COUNTERS, cell, strict=False))) for hour, cell in enumerate(cells) if any(cell)
    )
    return TallyFile(path, path.stem, *named, day, hours, closed)


def _released(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(fd)
