"""All folders of the log in one lake, and who may rearrange them: what `slipway_tidy` works on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from slipway.adapters.files import FileStore
from slipway.adapters.log_files import LogFiles, again, is_compacted

__all__ = ["FileCount", "LogFolder", "LogFolders"]

_KINDS = ("predictions", "labels")
_FOLDER = re.compile(r"(?P<kind>\w+)/model=(?P<model>\w+)/date=(?P<date>\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class LogFolder:
    """The rows of one kind, model and UTC date."""

    kind: str
    model: str
    date: date

    @property
    def path(self) -> str:
        return f"{self.kind}/model={self.model}/date={self.date.isoformat()}"

    @property
    def begins(self) -> datetime:
        return datetime(self.date.year, self.date.month, self.date.day, tzinfo=UTC)

    @property
    def ends(self) -> datetime:
        return self.begins + timedelta(days=1)


@dataclass(frozen=True)
class FileCount:
    """How many files hold a model's predictions: as shipped, compacted, and replaced but not deleted yet."""

    shipped: int
    compacted: int
    replaced: int


class LogFolders:
    """Compacts the log below one fsspec URL."""

    def __init__(self, url: str) -> None:
        self._files = FileStore(url)
        self._log = LogFiles(self._files)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[bool]:
        """Hold a local lake against other compactions; yields False if one is at work.

        For a lake elsewhere somebody else has to see to it: two at a time could merge a segment twice.
        """
        root = self._files.local_root
        if root is None:
            yield True
            return
        root.mkdir(parents=True, exist_ok=True)
        fd = os.open(root / ".compaction.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(fd)

    def all(self, kind: str | None = None) -> list[LogFolder]:
        """Every folder, oldest first."""
        found = []
        for name in _KINDS if kind is None else (kind,):
            for model in self._files.list(name):
                for path in self._files.list(model):
                    match = _FOLDER.fullmatch(path)
                    if match:
                        found.append(LogFolder(match["kind"], match["model"], date.fromisoformat(match["date"])))
        return sorted(found, key=lambda folder: (folder.date, folder.kind, folder.model))

    def merge_hours(self, folder: LogFolder, before: datetime) -> int:
        """Merge what was shipped in each hour that ended before `before`; how many files were written."""
        return len(again(lambda: self._log.merge_hours(folder.path, folder.begins, before)))

    def merge_day(self, folder: LogFolder) -> int:
        """Merge everything of a date into one file; how many files were written."""
        return len(again(lambda: self._log.merge_day(folder.path)))

    def sweep(self, folder: LogFolder, before: datetime) -> int:
        """Delete files that were replaced before `before`; how many."""
        return self._log.sweep(folder.path, before)

    def count(self, model: str) -> FileCount:
        """The files of a model's predictions."""
        shipped = compacted = everything = 0
        for folder in (folder for folder in self.all("predictions") if folder.model == model):
            names = [path.rsplit("/", 1)[-1] for path in self._files.list(folder.path)]
            everything += sum(name.endswith(".parquet") and not name.startswith(".") for name in names)
            visible = again(lambda path=folder.path: self._log.visible(path))  # type: ignore[misc]
            merged = sum(is_compacted(path.rsplit("/", 1)[-1].removesuffix(".parquet")) for path in visible)
            compacted += merged
            shipped += len(visible) - merged
        return FileCount(shipped, compacted, max(0, everything - shipped - compacted))
