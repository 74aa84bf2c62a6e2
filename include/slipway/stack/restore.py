"""Put a backup in the place of whatever the home holds, so that the next start serves what was served then.

Nothing is destroyed: what was there is set aside first (see `aside`), into `before-restore/` below the home if it can
be. What is to be done is written down before it begins; a restore that was interrupted is taken up by the same command,
and until then no stack starts on half of it. Slots and routes are not part of a backup: the keeper makes them from the
tables.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.adapters.whole_file import write_whole
from slipway.errors import ArtefactError, StackError
from slipway.settings import Settings, env_file_path
from slipway.stack import backup, postgres
from slipway.stack.aside import filled_databases, kept_database, rename_databases, set_folder_aside
from slipway.stack.start import exclusive, restore_marker
from slipway.stack.supervisor import Supervisor

if TYPE_CHECKING:
    from slipway.adapters.backup_folder import Backup

__all__ = ["await_truth", "kept_env", "place_env", "restore_stack"]

Report = Callable[[str], None]

# What a stack of other data would get wrong; logs, metrics and backups stay.
_REPLACED = ("mlflow", "bentoml", "spool", "tls", "envoy", "airflow", "supervisor/slots")
_SESSIONS = """select datname, application_name from pg_stat_activity
    where backend_type = 'client backend' and datname = any(%s)"""
_PATHS = "update packages set path = %s || substr(path, length(%s) + 1) where starts_with(path, %s)"


def kept_env(chosen: Backup) -> str:
    """The settings and secrets in a backup, as lines of a `.env` file.

    Raises:
        ArtefactError: it has none.
    """
    try:
        return (chosen.path / backup.ENV_FILE).read_text(encoding="utf-8")
    except OSError as error:
        raise ArtefactError(f"backup {chosen.path} holds no settings; `make compose-secrets` makes new ones") from error


def place_env(chosen: Backup) -> bool:
    """Take settings and secrets from the backup where this installation has none yet; True when it did.

    Must come before the settings are read.
    """
    target = env_file_path()
    if target.exists() or not (chosen.path / backup.ENV_FILE).is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(chosen.path / backup.ENV_FILE, target)  # with its mode
    target.chmod(0o600)
    return True


@dataclass(frozen=True)
class _Plan:
    """What is being done, as the marker of an unfinished restore tells the next attempt.

    Attributes:
        backup: the path of the backup.
        aside: the folder that what was there goes to; its name is the time of the first attempt.
        databases: of a server elsewhere, those that held something at the first attempt.
    """

    backup: str
    aside: str
    databases: tuple[str, ...] = ()


def restore_stack(settings: Settings, chosen: Backup, report: Report) -> Path | None:
    """Put everything in its place, with the stack down before and after.

    Returns:
        The folder that what was there before is in; None if nothing was. What had to stay elsewhere is reported.

    Raises:
        StackError: the stack runs, or the backup does not fit this installation.
        ArtefactError: the backup is damaged; nothing was changed.
        StoreError: Postgres refused.
    """
    chosen.verify()
    report(f"backup {chosen.name}: {chosen.manifest['files']} files are whole")
    if _other_fernet_key(settings, chosen):
        report("Airflow's encrypted connections and variables need the SLIPWAY_AIRFLOW_FERNET_KEY of the backup's env")
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with exclusive(settings):
        _check_down(settings)
        plan = _begin(settings, chosen)
        _make_room(settings, plan, report)
        _place_files(settings, chosen, report)
        if settings.postgres_host is None:
            postgres.initialise(settings)
        with postgres.serving(settings):
            _place_databases(settings, chosen, report)
        restore_marker(settings).unlink()
    aside = Path(plan.aside)
    return aside if aside.exists() and any(aside.iterdir()) else None


def _check_down(settings: Settings) -> None:
    if settings.postgres_host is None:
        if postgres.is_ready(settings) or Supervisor(settings).is_running():
            raise StackError("the stack runs; stop it with `slipway down` before a restore")
        return
    postgres.await_server(settings)
    with postgres.connection(settings) as opened, opened.cursor() as cursor:
        cursor.execute(_SESSIONS, (list(postgres.DATABASES),))
        if row := cursor.fetchone():
            user = f"{row[1] or 'a program without a name'} uses the database {row[0]}"
            raise StackError(f"the stack runs ({user}); stop it with `slipway --stack compose down` before a restore")


def _other_fernet_key(settings: Settings, chosen: Backup) -> bool:
    env = chosen.path / backup.ENV_FILE
    found = re.search(r"(?m)^SLIPWAY_AIRFLOW_FERNET_KEY=(.+)$", env.read_text() if env.is_file() else "")
    return found is not None and found[1].strip() != settings.secret("airflow_fernet_key")


def _begin(settings: Settings, chosen: Backup) -> _Plan:
    """Write down what is being done; an earlier attempt that did not end has said where what was there goes."""
    marker = restore_marker(settings)
    if marker.is_file():
        earlier = json.loads(marker.read_text(encoding="utf-8"))
        aside, databases = earlier["aside"], earlier.get("databases", ())
    else:
        aside = str(settings.home / "before-restore" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        databases = filled_databases(settings) if settings.postgres_host else ()
    plan = _Plan(str(chosen.path), aside, tuple(databases))
    write_whole(marker, json.dumps(asdict(plan)))
    return plan


def _make_room(settings: Settings, plan: _Plan, report: Report) -> None:
    aside = Path(plan.aside)
    own_cluster = ("postgres",) if settings.postgres_host is None else ()
    pairs = {settings.home / name: aside / name for name in (*own_cluster, *_REPLACED)}
    if (lake := backup.local_lake(settings)) is not None:
        inside = settings.home in lake.parents
        pairs[lake] = aside / "lake" if inside else lake.with_name(f"{lake.name}.before-restore-{aside.name}")
    for there, wanted in pairs.items():
        kept = set_folder_aside(there, wanted, aside.name)
        if kept is not None and aside not in kept.parents:
            report(f"{there.name}: what was there before is in {kept}")
    if settings.postgres_host is not None:
        rename_databases(settings, plan.databases, aside.name)
        for name in plan.databases:
            report(f"database {name}: what was there before is now {kept_database(name, aside.name)}")


def _place_files(settings: Settings, chosen: Backup, report: Report) -> None:
    parts = {name: settings.home / below for name, below in backup.FOLDERS.items()} | {"spool": settings.spool_dir}
    lake = backup.local_lake(settings)
    if lake is not None:
        parts["lake"] = lake
    elif chosen.manifest["lake"] is None:
        raise StackError(f"the backup holds a lake and SLIPWAY_LAKE_URL is {settings.lake}; unset it for the restore")
    for part, target in parts.items():
        report(f"{part}: {chosen.place(part, target)} files")


def _place_databases(settings: Settings, chosen: Backup, report: Report) -> None:
    postgres.create_databases(settings)
    tools = backup.dump_tools(settings)
    for database in postgres.DATABASES:
        tools.restore(chosen.path / "postgres" / f"{database}.dump", database)
        with postgres.connection(settings, database) as opened, opened.cursor() as cursor:
            if database == "slipway":
                former = f"{chosen.manifest['home']}/"
                cursor.execute(_PATHS, (f"{settings.home}/", former, former))
            cursor.execute("analyze")
        report(f"database {database}: restored")


def await_truth(settings: Settings, timeout_seconds: float = 120.0) -> dict[str, Any]:
    """Wait until the started stack serves what its tables say; every model's live version.

    Raises:
        StackError: it does not in time; the message names the difference.
    """
    from slipway.stack.processes import wait_until
    from slipway.wiring import Wiring

    slipway = Wiring(settings)
    left: list[Any] = []

    def agrees() -> bool:
        left[:] = slipway.releases.survey()
        return not left

    with closing(slipway.database):
        if not wait_until(agrees, timeout_seconds, interval_seconds=0.5):
            raise StackError(f"restored, but after {timeout_seconds:.0f} s: {left[0].detail}; see `slipway doctor`")
        return {row.model: row.live_version for row in slipway.store.traffic()}
