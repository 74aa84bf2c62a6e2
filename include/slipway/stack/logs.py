"""The logs of the stack's parts: the last lines, and what follows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from slipway.errors import NotFoundError
from slipway.settings import Settings

__all__ = ["follow", "last_lines", "log_files"]

POLL_SECONDS = 0.3
_TAIL_BYTES = 256 * 1024


def log_files(settings: Settings, part: str | None = None) -> dict[str, Path]:
    """The log file of each part, or of one.

    Raises:
        NotFoundError: that part has no log.
    """
    files = {path.stem: path for path in sorted(settings.log_dir.glob("*.log"))}
    if part is None:
        return files
    if part not in files:
        raise NotFoundError(f"no log of {part!r} in {settings.log_dir}; logs: {', '.join(files) or 'none'}")
    return {part: files[part]}


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file, without reading all of it."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return lines[-count:] if count > 0 else []


def follow(files: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """New lines of the files as (part, line), for ever; survives log rotation."""
    places = {name: (path.stat().st_ino, path.stat().st_size) for name, path in files.items()}
    while True:
        for name, path in files.items():
            try:
                found = path.stat()
            except FileNotFoundError:  # between a rotation's two steps
                continue
            inode, offset = places[name]
            if found.st_ino != inode or found.st_size < offset:
                offset = 0
            if found.st_size > offset:
                with path.open("rb") as file:
                    file.seek(offset)
                    data = file.read(found.st_size - offset)
                whole = data[: data.rfind(b"\n") + 1]
                offset += len(whole)
                yield from ((name, line) for line in whole.decode(errors="replace").splitlines())
            places[name] = (found.st_ino, offset)
        time.sleep(POLL_SECONDS)
