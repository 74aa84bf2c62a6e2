"""A backup on disk: a folder that appears whole, with the digest of every file in it.

`SHA256SUMS` is what `sha256sum --check` reads; `manifest.json` says what the backup is of, and holds the digest of the
sums, so that a file that is missing, added or changed is noticed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.errors import ArtefactError, ConflictError, NotFoundError

__all__ = ["Backup", "BackupFolder", "NewBackup"]

FORMAT = 1
_MANIFEST, _SUMS, _PARTIAL = "manifest.json", "SHA256SUMS", ".partial"
_CHUNK_BYTES = 1 << 20
_TRIES = 20


@dataclass(frozen=True)
class Backup:
    """A finished backup."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    def verify(self) -> None:
        """Read every file and compare it with its digest.

        Raises:
            ArtefactError: one is missing or differs; the message names it.
        """
        for name, expected in self._sums().items():
            path = self.path / name
            if not path.is_file():
                raise ArtefactError(f"backup {self.path} is incomplete: {name} is missing; use another one")
            if _copy(path, None) != expected:
                raise ArtefactError(f"backup {self.path} is damaged: {name} differs from its digest; use another one")

    def place(self, part: str, target: Path) -> int:
        """Copy one part's files below a folder; how many."""
        names = [name for name in self._sums() if name.startswith(f"{part}/")]
        for name in names:
            path = target / name.removeprefix(f"{part}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            _copy(self.path / name, path)
        return len(names)

    def _sums(self) -> dict[str, str]:
        try:
            text = (self.path / _SUMS).read_text(encoding="utf-8")
        except OSError as error:
            raise ArtefactError(f"backup {self.path} has no readable {_SUMS}; use another one") from error
        if hashlib.sha256(text.encode()).hexdigest() != self.manifest["sums_sha256"]:
            raise ArtefactError(f"backup {self.path} is damaged: {_SUMS} differs from its digest; use another one")
        return {line[66:]: line[:64] for line in text.splitlines()}


class NewBackup:
    """A backup while it is made; every file is in it once, as it was when it was copied first.

    Attributes:
        folder: where it lies until it is finished.
        name: what it is called then.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.bytes = 0
        self._sums: dict[str, str] = {}

    def add(self, name: str, make: Callable[[Path], object]) -> None:
        """Let `make` write a file of its own."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path)
        self._note(name, _copy(path, None))

    def copy(self, part: str, source: Path, wanted: Callable[[str], bool] = lambda name: True) -> int:
        """Copy the files below a folder that lives on meanwhile; how many.

        Whatever was there when this call began is in the backup afterwards, unless it was deleted for good; a file that
        took the place of others is found by another look, as often as one vanishes before it was read.

        Args:
            wanted: whether a file, by its path below `source`, belongs to it.
        """
        copied = 0
        for _ in range(_TRIES):
            vanished = False
            for path in _files(source):
                below = path.relative_to(source).as_posix()
                name = f"{part}/{below}"
                if name in self._sums or not wanted(below):
                    continue
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._note(name, _copy(path, target))
                except FileNotFoundError:
                    vanished = True
                    continue
                copied += 1
            if not vanished:
                break
        return copied

    def drop(self, name: str) -> None:
        """Leave a file out after all."""
        self.bytes -= (self.folder / name).stat().st_size
        (self.folder / name).unlink()
        del self._sums[name]

    def names(self, part: str) -> list[str]:
        """The files of one part."""
        return sorted(name for name in self._sums if name.startswith(f"{part}/"))

    def seal(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Write down what there is."""
        text = "".join(f"{digest}  {name}\n" for name, digest in sorted(self._sums.items()))
        (self.folder / _SUMS).write_text(text, encoding="utf-8")
        counts = {"files": len(self._sums), "bytes": self.bytes}
        whole = {"format": FORMAT, **manifest, **counts, "sums_sha256": hashlib.sha256(text.encode()).hexdigest()}
        (self.folder / _MANIFEST).write_text(json.dumps(whole, indent=1), encoding="utf-8")
        return whole

    def _note(self, name: str, digest: str) -> None:
        self._sums[name] = digest
        self.bytes += (self.folder / name).stat().st_size


class BackupFolder:
    """Where backups lie, each in a folder of its own that is named after its time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextlib.contextmanager
    def new(self, name: str) -> Iterator[NewBackup]:
        """A backup that is there under its name once the block has ended without an exception.

        A name that is taken, by a backup of the same second, gets a number.

        Raises:
            ConflictError: another backup is being made here.
        """
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.root / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConflictError(f"another backup is being made in {self.root}; wait for it") from error
            for left in self.root.glob(f"*{_PARTIAL}"):  # of a backup that was killed
                shutil.rmtree(left)
            paths = (self.root / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
            path = next(path for path in paths if not path.exists())
            aside = path.with_name(f"{path.name}{_PARTIAL}")
            aside.mkdir(mode=0o700)
            try:
                yield NewBackup(aside, path.name)
                os.sync()  # one call for thousands of files
                aside.rename(path)
                os.sync()
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def all(self) -> list[Backup]:
        """Every backup, oldest first; what is no backup is left out."""
        found = [_open(path) for path in sorted(self.root.glob("*")) if path.suffix != _PARTIAL]
        return [one for one in found if one is not None]

    def find(self, name: str | None) -> Backup:
        """A backup by its name or path; the newest without one.

        Raises:
            NotFoundError: there is none.
            ArtefactError: a later version of Slipway has made it.
        """
        if name is None:
            known = self.all()
            chosen = known[-1] if known else None
        else:
            chosen = _open(Path(name)) or _open(self.root / name)
        if chosen is None:
            names = ", ".join(one.name for one in self.all()[-5:]) or "none"
            raise NotFoundError(f"no backup {name or 'at all'} in {self.root}; the newest there: {names}")
        if chosen.manifest["format"] != FORMAT:
            raise ArtefactError(f"backup {chosen.path} has format {chosen.manifest['format']}; use a later Slipway")
        return chosen

    def keep(self, count: int) -> list[str]:
        """Delete all but the newest `count`; the names of those that went."""
        gone = self.all()[:-count]
        for one in gone:
            shutil.rmtree(one.path)
        return [one.name for one in gone]


def _open(path: Path) -> Backup | None:
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        return Backup(path.resolve(), manifest) if {"format", "sums_sha256"} <= set(manifest) else None
    except (OSError, ValueError, TypeError):
        return None


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if path.is_file():
                yield path


def _copy(source: Path, target: Path | None) -> str:
    """Copy a file, or only read it; the SHA-256 of what was read."""
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        reading = stack.enter_context(source.open("rb"))
        writing = stack.enter_context(target.open("wb")) if target else None
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            if writing:
                writing.write(chunk)
    if target:
        shutil.copymode(source, target)
    return digest.hexdigest()
