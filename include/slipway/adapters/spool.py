"""The spool folder as the keeper sees it: finds, salvages and reads segments.

The writers are the bentos' workers. A segment is a file of frames, `u32 length, u32 crc32, payload`
(little-endian): a JSON header first, then one MessagePack record per answered request or label. `.open`
files belong to a living writer as long as their `flock` is held; `.seg` files are complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

from slipway.errors import DataError

__all__ = ["Segment", "SegmentFile", "Spool", "SpoolKind"]

SpoolKind = Literal["predictions", "labels"]

_HEAD = struct.Struct("<II")
_READ_BYTES = 1 << 20
# A writer that was killed between creating a file and naming it leaves this behind; it never holds a record.
_STRAY_SECONDS = 60.0


@dataclass(frozen=True)
class Segment:
    """One sealed segment; `name` is unique for ever and becomes the name of its Parquet file."""

    kind: SpoolKind
    model: str
    name: str
    path: Path


@dataclass(frozen=True)
class SegmentFile:
    """What a segment holds.

    Attributes:
        records: MessagePack payloads in the order they were written.
        damaged: bytes after the last whole frame; 0 unless the disk lost something.
    """

    header: Mapping[str, Any]
    records: tuple[bytes, ...]
    damaged: int


@dataclass
class _Progress:
    """How far an unshipped file has been counted already."""

    offset: int = 0
    rows: int = 0


class Spool:
    """All segments below one folder, `<kind>/<model>/<segment>.{open,seg}`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._counted: dict[str, _Progress] = {}

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Hold the folder against other shippers; yields False if one is at work already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.folder / ".ship.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(fd)

    def sealed(self) -> list[Segment]:
        """Every complete segment, oldest first."""
        found = [self._segment(path) for path in self._files("seg")]
        return sorted(found, key=lambda segment: segment.name)

    def salvage(self) -> list[Segment]:
        """Seal what killed writers left open, up to the last whole frame; what was sealed by this call."""
        salvaged = []
        for path in self._files("open"):
            with contextlib.suppress(FileNotFoundError):  # its writer sealed it just now
                if _seal_abandoned(path):
                    salvaged.append(self._segment(path.with_suffix(".seg")))
        for path in self._files("tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STRAY_SECONDS and _abandoned(path):
                    path.unlink()
        return salvaged

    def read(self, segment: Segment) -> SegmentFile:
        """Header and records of a sealed segment.

        Raises:
            DataError: not even its header can be read.
        """
        payloads = []
        end = 0
        for end, payload in _frames(segment.path):  # noqa: B007 - the last end is where damage would begin
            payloads.append(payload)
        if not payloads:
            raise DataError(f"spool segment {segment.name} of {segment.model} has no readable header")
        header = json.loads(payloads[0])
        return SegmentFile(header, tuple(payloads[1:]), segment.path.stat().st_size - end)

    def remove(self, segment: Segment) -> None:
        """Delete a segment that is in the lake; deleting twice is fine."""
        segment.path.unlink(missing_ok=True)
        self._counted.pop(str(segment.path.with_suffix("")), None)

    def set_aside(self, segment: Segment) -> Path:
        """Keep a damaged segment as `.damaged` for a person to look at; nothing reads it any more."""
        aside = segment.path.with_suffix(".damaged")
        segment.path.rename(aside)
        return aside

    def pending_rows(self) -> dict[str, int]:
        """Prediction rows by model that were answered and are not in the lake yet, open segments included.

        Each call reads only what was added since the last.
        """
        import msgspec

        rows: dict[str, int] = {}
        alive = set()
        for state in ("open", "seg"):
            for path in self._files(state, "predictions"):
                key = str(path.with_suffix(""))
                alive.add(key)
                progress = self._counted.setdefault(key, _Progress())
                with contextlib.suppress(FileNotFoundError):
                    for end, payload in _frames(path, progress.offset):
                        if progress.offset:
                            progress.rows += len(msgspec.msgpack.decode(payload)[4])
                        progress.offset = end
        for key in set(self._counted) - alive:
            del self._counted[key]
        for key, progress in self._counted.items():
            model = Path(key).parent.name
            rows[model] = rows.get(model, 0) + progress.rows
        return rows

    def records(self, kind: SpoolKind) -> Iterator[tuple[str, Mapping[str, Any], Any]]:
        """Model, header and decoded record of everything that waits, segments that are still written to included."""
        import msgspec

        for state in ("open", "seg"):
            for path in self._files(state, kind):
                header: Mapping[str, Any] | None = None
                with contextlib.suppress(FileNotFoundError):  # it was sealed or shipped just now
                    for _, payload in _frames(path):
                        if header is None:
                            header = json.loads(payload)
                        else:
                            yield path.parent.name, header, msgspec.msgpack.decode(payload)

    def waiting_since(self, model: str | None = None) -> datetime | None:
        """When the oldest segment of predictions that is not in the lake yet was begun; None if there is none.

        Every row that is not shipped was answered after that.
        """
        begun = [
            _begun(path)
            for state in ("open", "seg")
            for path in self._files(state, "predictions")
            if model is None or path.parent.name == model
        ]
        return min(begun, default=None)

    def pending_bytes(self, model: str) -> int:
        """Bytes of a model's segments that are not in the lake yet, labels included."""
        total = 0
        for state in ("open", "seg"):
            for path in self._files(state):
                with contextlib.suppress(FileNotFoundError):
                    total += path.stat().st_size if path.parent.name == model else 0
        return total

    def damaged(self, model: str) -> list[Path]:
        """Segments that were set aside because the disk had lost a part of them."""
        return sorted(path for path in self._files("damaged") if path.parent.name == model)

    def models(self) -> list[str]:
        """Every model that ever wrote here."""
        return sorted(
            {path.name for kind in ("predictions", "labels", "tally") for path in self.folder.glob(f"{kind}/*")}
        )

    def _files(self, state: str, kind: str = "*") -> list[Path]:
        return [
            path
            for path in self.folder.glob(f"{kind}/*/*.{state}")
            if path.parent.parent.name in ("predictions", "labels")
        ]

    def _segment(self, path: Path) -> Segment:
        kind: SpoolKind = "labels" if path.parent.parent.name == "labels" else "predictions"
        return Segment(kind, path.parent.name, path.name.removesuffix(path.suffix), path)


def _begun(path: Path) -> datetime:
    """When a segment was begun: its name says so, and its file's age otherwise."""
    try:
        return datetime.strptime(path.name[:22], "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        with contextlib.suppress(FileNotFoundError):
            return datetime.fromtimestamp(path.stat().st_ctime, UTC)
        return datetime.now(UTC)


def _frames(path: Path, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """Whole frames from `offset` on, each with the offset of its end; stops at the first that is not whole."""
    size = path.stat().st_size
    with path.open("rb", buffering=_READ_BYTES) as file:
        file.seek(offset)
        while head := file.read(_HEAD.size):
            if len(head) < _HEAD.size:
                return
            length, checksum = _HEAD.unpack(head)
            # A zero length would have a zero checksum: that is what a file system leaves after a power loss.
            if not 0 < length <= size - offset - _HEAD.size:
                return
            payload = file.read(length)
            if len(payload) < length or crc32(payload) != checksum:
                return
            offset += _HEAD.size + length
            yield offset, payload


def _abandoned(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        return _lock(fd)
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _seal_abandoned(path: Path) -> bool:
    fd = os.open(path, os.O_RDWR)
    try:
        if not _lock(fd):
            return False
        # The lock may have come free because its writer sealed it between our open and our lock.
        if os.stat(path).st_ino != os.fstat(fd).st_ino:
            return False
        end = 0
        for end, _ in _frames(path):  # noqa: B007
            pass
        os.ftruncate(fd, end)
        os.fsync(fd)
        path.rename(path.with_suffix(".seg"))
        return True
    finally:
        os.close(fd)
