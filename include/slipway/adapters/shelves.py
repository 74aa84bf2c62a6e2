"""What housekeeping looks through on disks and in the lake: bentos, data sets, reports, accounts, logs of slots,
damaged segments."""

from __future__ import annotations

import contextlib
import fcntl
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from slipway.adapters.files import FileStore
from slipway.adapters.log_accounts import LogAccounts
from slipway.adapters.spool import Spool
from slipway.core.reach import Stored
from slipway.errors import ConflictError, DataError

__all__ = ["BentoStore", "DamagedSegments", "LakeStore", "SlotLogs"]

_STRAY_SECONDS = 24 * 3600.0
_SLOT_LOG = re.compile(r"slot-(?P<model>[a-z][a-z0-9_]*)-(?P<slot>blue|green)\.log(\.\d+)?")
_DATE = re.compile(r"date=(\d{4}-\d{2}-\d{2})$")


class BentoStore:
    """Bentos and the records of their digests below BentoML's home."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._trash = home / ".trash"

    def all(self) -> list[Stored]:
        """Every bento with the time when it was built or last asked for."""
        found = []
        for path in sorted((self._home / "bentos").glob("*/v*")):
            with contextlib.suppress(FileNotFoundError):
                if path.is_dir():
                    times = [path.stat().st_mtime, *_times(self._record(path.parent.name, path.name[1:]))]
                    at = datetime.fromtimestamp(max(times), UTC)
                    found.append(Stored(path.parent.name, path.name[1:], at, _bytes(path)))
        return found

    def remove(self, model: str, version: str) -> None:
        """Take a bento out of the store in one step; its files go then, or with the next `sweep`.

        Raises:
            ConflictError: it is being built or looked at right now.
        """
        path = self._home / "bentos" / model / f"v{version}"
        self._trash.mkdir(parents=True, exist_ok=True)
        aside = self._trash / f"{model}-v{version}-{secrets.token_hex(4)}"
        with self._locked(model, version):
            # Its record first: a bento without one is built again when it is asked for.
            self._record(model, version).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside)
            self._point_latest(model)
        shutil.rmtree(aside, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, model: str, version: str) -> Iterator[None]:
        """The packager's lock of this bento, which goes with it."""
        path = self._record(model, version).with_suffix(".lock")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(f"bento {model}:v{version} is in use by another process; try again") from None
            yield
            path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete what killed runs left: bentos out of the store, half-built ones, records of neither."""
        for path in self._trash.glob("*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self._home / "tmp").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STRAY_SECONDS:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _record(self, model: str, version: str) -> Path:
        return self._home / "digests" / f"{model}-v{version}.json"

    def _point_latest(self, model: str) -> None:
        """BentoML's own pointer must not name what is gone."""
        folder = self._home / "bentos" / model
        latest = folder / "latest"
        if latest.is_file() and not (folder / latest.read_text().strip()).is_dir():
            left = sorted((path for path in folder.glob("v*") if path.is_dir()), key=lambda path: path.stat().st_mtime)
            if left:
                aside = folder / ".latest.new"
                aside.write_text(left[-1].name)
                aside.replace(latest)
            else:
                latest.unlink(missing_ok=True)
                folder.rmdir()


class LakeStore:
    """Data sets, reports and accounts below one fsspec URL."""

    def __init__(self, url: str) -> None:
        self._files = FileStore(url)
        self._accounts = LogAccounts(url)

    def data_sets(self, model: str) -> list[Stored]:
        """Every data set by its hash."""
        found = []
        for path in self._files.list(f"datasets/model={model}"):
            name = path.rsplit("/", 1)[-1]
            if re.fullmatch(r"[0-9a-f]{64}\.parquet", name):
                size, at = self._files.facts(path)
                found.append(Stored(model, name.removesuffix(".parquet"), at, size))
        return found

    def reports(self, model: str) -> list[Stored]:
        """Every folder of reports with the time of its newest file."""
        found = []
        for folder in self._files.list(f"reports/model={model}"):
            facts = [self._files.facts(path) for path in self._files.list(folder)]
            at = max((at for _, at in facts), default=datetime.fromtimestamp(0, UTC))
            found.append(Stored(model, folder.rsplit("/", 1)[-1], at, sum(size for size, _ in facts)))
        return found

    def accounts(self, model: str) -> list[Stored]:
        """The counts of each date whose coverage is settled and kept: nobody asks for them again."""
        found = []
        for folder in self._files.list(f"counts/model={model}"):
            if match := _DATE.search(folder):
                day = date.fromisoformat(match[1])
                start = datetime(day.year, day.month, day.day, tzinfo=UTC)
                end = start + timedelta(days=1)
                coverage = self._accounts.coverage(model, start, end)
                if coverage and all(row["settled"] for row in coverage):
                    size = sum(self._files.facts(path)[0] for path in self._files.list(folder))
                    found.append(Stored(model, match[1], end, size))
        return found

    def remove(self, kind: str, model: str, name: str) -> None:
        """Remove one of the above; removing twice is fine."""
        if kind == "data set":
            self._files.delete(f"datasets/model={model}/{name}.parquet")
        elif kind in ("report", "account"):
            folder = f"reports/model={model}/{name}" if kind == "report" else f"counts/model={model}/date={name}"
            for path in self._files.list(folder):
                self._files.delete(path)
            self._files.delete_folder(folder)
        else:
            raise DataError(f"the lake holds no {kind}")


class SlotLogs:
    """Logs that Supervisor writes and rotates for each slot."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Stored]:
        """Every log file of a slot, rotated ones too."""
        found = []
        for path in sorted(self._folder.glob("slot-*.log*")):
            match = _SLOT_LOG.fullmatch(path.name)
            if match:
                with contextlib.suppress(FileNotFoundError):
                    facts = path.stat()
                    at = datetime.fromtimestamp(facts.st_mtime, UTC)
                    found.append(Stored(match["model"], path.name, at, facts.st_size, {"slot": match["slot"]}))
        return found

    def remove(self, name: str) -> None:
        """Delete one log file; deleting twice is fine."""
        if _SLOT_LOG.fullmatch(name):
            (self._folder / name).unlink(missing_ok=True)


class DamagedSegments:
    """Segments of the prediction log that the shipper set aside because the disk had lost a part of them."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def all(self) -> list[Stored]:
        """Every one by its path in the spool, with the time when it was set aside."""
        found = []
        for model in self._spool.models():
            for path in self._spool.damaged(model):
                with contextlib.suppress(FileNotFoundError):
                    facts = path.stat()
                    at = datetime.fromtimestamp(facts.st_ctime, UTC)  # of its renaming; it may be written long before
                    found.append(Stored(model, str(path.relative_to(self._spool.folder)), at, facts.st_size))
        return found

    def remove(self, name: str) -> None:
        """Delete one file; deleting twice is fine."""
        if name.endswith(".damaged"):
            (self._spool.folder / name).unlink(missing_ok=True)


def _times(path: Path) -> Iterator[float]:
    with contextlib.suppress(FileNotFoundError):
        yield path.stat().st_mtime


def _bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() else 0
    return total
