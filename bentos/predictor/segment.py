"""One file of the spool: a locked, append-only sequence of checksummed frames.

Layout: frames of `u32 length, u32 crc32, payload` (little-endian); the first payload is a JSON header, the
others are MessagePack. The writer holds an exclusive `flock` from before the file gets its visible name
until after it is sealed, so an `.open` file whose lock is free belonged to a killed process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

__all__ = ["Segment", "frame"]

_HEAD = struct.Struct("<II")


def frame(payload: bytes) -> bytes:
    """The payload with its length and checksum in front."""
    return _HEAD.pack(len(payload), crc32(payload)) + payload


class Segment:
    """A segment open for writing.

    Attributes:
        day: days since the epoch, UTC; all rows of a segment are of one date.
        size: bytes of whole frames, which is also where the next one goes.
    """

    def __init__(self, folder: Path, header: bytes, day: int, opened: float) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        self.stem = folder / f"{stamp}-{os.getpid()}-{secrets.token_hex(4)}"
        self.day = day
        self.opened = opened
        self.size = 0
        self._name_synced = False
        folder.mkdir(parents=True, exist_ok=True)
        aside = self._path("tmp")
        self._fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self.append(frame(header))
            os.rename(aside, self._path("open"))
        except OSError:
            os.close(self._fd)
            with contextlib.suppress(OSError):
                os.unlink(aside)
            raise

    def _path(self, state: str) -> str:
        return f"{self.stem}.{state}"

    def append(self, data: bytes) -> None:
        """Write one whole frame, or nothing of it.

        Raises:
            OSError: the disk is full or broken; the segment ends with its last whole frame as before.
        """
        try:
            written = os.pwrite(self._fd, data, self.size)
            while written < len(data):  # a disk that fills up takes a part first and refuses then
                written += os.pwrite(self._fd, data[written:], self.size + written)
        except OSError:
            os.ftruncate(self._fd, self.size)
            raise
        self.size += written

    def sync(self) -> None:
        """Make everything appended so far safe against power loss."""
        os.fsync(self._fd)
        if not self._name_synced:
            _sync_folder(self.stem.parent)
            self._name_synced = True

    def seal(self) -> None:
        """Make it durable, give it its final name and let go of the lock; nothing can be appended any more."""
        try:
            os.fsync(self._fd)
            os.rename(self._path("open"), self._path("seg"))
            _sync_folder(self.stem.parent)
        finally:
            os.close(self._fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
