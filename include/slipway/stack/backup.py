"""Take a backup: the three databases, MLflow's artefacts, the bentos, the prediction log with what waits for it.

It may be taken while the stack serves. The order makes the copies fit together: Slipway's own database comes first,
then MLflow's and Airflow's, then files, so that whatever a row refers to is in the backup as well. Of the log the
accounts of what was answered come before the rows, so that no hour looks as if it had lost some. A segment that is
shipped in between is in the backup twice, and after a restore the shipper finds it in the lake already.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway import __version__
from slipway.adapters.whole_file import write_whole
from slipway.errors import ConflictError, StackError
from slipway.settings import Settings, env_file_path
from slipway.stack import postgres
from slipway.stack.start import exclusive

if TYPE_CHECKING:
    from slipway.adapters.backup_folder import Backup, NewBackup

__all__ = ["ENV_FILE", "FOLDERS", "backup_root", "dump_tools", "local_lake", "take_backup"]

Report = Callable[[str], None]

ENV_FILE = "env"
# Folders of the home by the part of the backup that holds them. The lake and the spool are copied apart.
FOLDERS = {"mlflow": "mlflow/artifacts", "bentoml": "bentoml", "tls": "tls"}
_ACCOUNTS, _TALLIES = ("counts/", "coverage/"), "tally/"
_COMPACTION_SECONDS = 600.0
_SPARE_BYTES = 64 * 1024**2


def backup_root(settings: Settings) -> Path:
    """Where backups are kept."""
    return settings.backup_dir or settings.home / "backups"


def dump_tools(settings: Settings) -> Any:
    """Postgres's own tools for the stack's server."""
    from slipway.adapters.postgres_dump import PostgresDump

    password = settings.secret("postgres_password")
    host = settings.postgres_host or settings.host
    return PostgresDump(postgres.binary, host, settings.postgres_port, postgres.USER, password)


def take_backup(settings: Settings, report: Report, *, keep: int | None = None, env: str | None = None) -> Backup:
    """Make a backup and return it.

    Args:
        keep: afterwards delete all but so many of the newest ones.
        env: settings and secrets, as lines of a `.env` file; by default those of the installation's own.

    Raises:
        StackError: there is nothing to back up, or too little room.
        StoreError: Postgres refused.
        ConflictError: another backup is being made, or the log is being compacted all along.
    """
    from slipway.adapters.backup_folder import BackupFolder

    own = settings.postgres_host is None
    running = postgres.is_ready(settings)
    if own and not running and not (postgres.data_dir(settings) / "PG_VERSION").is_file():
        raise StackError(
            f"there is no stack in {settings.home} to back up; set SLIPWAY_HOME, or `slipway up`; "
            "for the containers it is `make compose-backup`"
        )
    folder, began = BackupFolder(backup_root(settings)), datetime.now(UTC)
    # A stack that is down stays down meanwhile.
    with ExitStack() as held:
        if own and not running:
            held.enter_context(exclusive(settings))
        held.enter_context(postgres.serving(settings))
        if missing := set(postgres.DATABASES) - set(postgres.existing_databases(settings)):
            raise StackError(f"Postgres has no database {min(missing)} to back up; start the stack once before")
        new = held.enter_context(folder.new(f"{began:%Y%m%dT%H%M%SZ}"))
        _check_room(settings, folder.root)
        manifest = _manifest(settings, began)
        _databases(settings, new, report)
        _files(settings, new, env, report)
        new.seal(manifest)
    made = folder.find(new.name)
    for gone in folder.keep(keep) if keep else ():
        report(f"deleted {gone}, older than the newest {keep}")
    return made


def _databases(settings: Settings, new: NewBackup, report: Report) -> None:
    tools = dump_tools(settings)
    for database in ("slipway", "mlflow", "airflow"):
        began = time.monotonic()
        new.add(f"postgres/{database}.dump", partial(tools.dump, database))
        size = (new.folder / f"postgres/{database}.dump").stat().st_size
        report(f"database {database}: {size / 1e6:.1f} MB in {time.monotonic() - began:.1f} s")


def _files(settings: Settings, new: NewBackup, env: str | None, report: Report) -> None:
    for part, below in FOLDERS.items():
        count = new.copy(part, settings.home / below)
        report(f"{part}: {count} files")
    if env is None and env_file_path().is_file():
        env = env_file_path().read_text(encoding="utf-8")
    if env:
        new.add(ENV_FILE, partial(write_whole, content=env, mode=0o600))
    with _no_compaction(settings):
        lake = local_lake(settings)
        new.copy("spool", settings.spool_dir, lambda name: name.startswith(_TALLIES))
        if lake is not None:
            new.copy("lake", lake, lambda name: name.startswith(_ACCOUNTS))
        new.copy("spool", settings.spool_dir, lambda name: not name.startswith((_TALLIES, ".")))
        _drop_sealed_twice(new)
        waiting = len(new.names("spool"))
        if lake is None:
            report(f"lake: {settings.lake} is kept where it is; see to its own versions")
            return
        new.copy("lake", lake, lambda name: not (name.startswith(_ACCOUNTS) or "/." in f"/{name}"))
    report(f"lake: {len(new.names('lake'))} files, and {waiting} that wait for it")


def _drop_sealed_twice(new: NewBackup) -> None:
    """A segment that was sealed while it was copied: the open one would take the whole one's place."""
    names = set(new.names("spool"))
    for name in names:
        if name.endswith(".open") and f"{name.removesuffix('.open')}.seg" in names:
            new.drop(name)


def local_lake(settings: Settings) -> Path | None:
    """The lake's folder; None for one on object storage."""
    from slipway.adapters.files import FileStore

    return FileStore(settings.lake).local_root


@contextmanager
def _no_compaction(settings: Settings) -> Iterator[None]:
    """Hold back what rearranges the log: a listing and the files must fit together.

    Raises:
        ConflictError: it goes on and on.
    """
    from slipway.adapters.postgres import Database

    database = Database(settings.database_uri())
    deadline = time.monotonic() + _COMPACTION_SECONDS
    with closing(database), ExitStack() as held:
        while True:
            try:
                held.enter_context(database.lock("log_compaction", 10.0))
                break
            except ConflictError:
                if time.monotonic() > deadline:
                    raise
        yield


def _check_room(settings: Settings, root: Path) -> None:
    sizes = "select sum(pg_database_size(datname)) from pg_database where datname = any(%s)"
    with postgres.connection(settings) as opened, opened.cursor() as cursor:
        cursor.execute(sizes, (list(postgres.DATABASES),))
        needed = int(cursor.fetchone()[0] or 0)
    folders = [settings.home / below for below in FOLDERS.values()] + [settings.spool_dir]
    lake = local_lake(settings)
    needed += sum(_bytes_below(folder) for folder in [*folders, *([lake] if lake else [])])
    free = shutil.disk_usage(root).free
    if free < needed + _SPARE_BYTES:
        raise StackError(
            f"{root} has {free / 1e9:.1f} GB free and a backup may need {needed / 1e9:.1f} GB; "
            "set SLIPWAY_BACKUP_DIR to a larger disk"
        )


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # the folder lives on meanwhile
            total += path.lstat().st_size
    return total


def _manifest(settings: Settings, began: datetime) -> dict[str, Any]:
    from slipway.adapters.postgres import Database
    from slipway.adapters.postgres_releases import PostgresReleaseStore

    with closing(Database(settings.database_uri())) as database:
        rows = PostgresReleaseStore(database, slot_port_base=settings.slot_port_base).traffic()
    return {
        "created_at": began.isoformat(timespec="seconds"),
        "slipway_version": __version__,
        "home": str(settings.home),
        "lake": None if local_lake(settings) else settings.lake,
        "live": {row.model: row.live_version for row in rows},
    }
