"""Put a backup in the place of whatever the home holds, so that the next start serves what was served then.

Nothing is destroyed: what was there is moved aside first, into `before-restore/` below the home. What is to be done is
written down before it begins; a restore that was interrupted is taken up by the same command, and until then no stack
starts on half of it. Slots and routes are not part of a backup: the keeper makes them from the tables.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.errors import StackError
from slipway.settings import Settings, env_file_path
from slipway.stack import backup, postgres
from slipway.stack.start import exclusive, restore_marker
from slipway.stack.supervisor import Supervisor

if TYPE_CHECKING:
    from slipway.adapters.backup_folder import Backup

__all__ = ["await_truth", "place_env", "restore_stack"]

Report = Callable[[str], None]

# What a stack of other data would get wrong; logs, metrics and backups stay.
_REPLACED = ("postgres", "mlflow", "bentoml", "spool", "tls", "envoy", "airflow", "supervisor/slots")
_PATHS = "update packages set path = %s || substr(path, length(%s) + 1) where starts_with(path, %s)"


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


def restore_stack(settings: Settings, chosen: Backup, report: Report) -> Path | None:
    """Put everything in its place, with the stack down before and after.

    Returns:
        The folder that what was there before is in; None if nothing was.

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
        if postgres.is_ready(settings) or Supervisor(settings).is_running():
            raise StackError("the stack runs; stop it with `slipway down` before a restore")
        aside = _begin(settings, chosen)
        moved = _move_aside(settings, aside)
        _place_files(settings, chosen, report)
        postgres.initialise(settings)
        with postgres.serving(settings):
            _place_databases(settings, chosen, report)
        restore_marker(settings).unlink()
    return aside if moved else None


def _other_fernet_key(settings: Settings, chosen: Backup) -> bool:
    env = chosen.path / backup.ENV_FILE
    found = re.search(r"(?m)^SLIPWAY_AIRFLOW_FERNET_KEY=(.+)$", env.read_text() if env.is_file() else "")
    return found is not None and found[1].strip() != settings.secret("airflow_fernet_key")


def _begin(settings: Settings, chosen: Backup) -> Path:
    """Write down what is being done, unless an earlier attempt has; where what was there goes."""
    marker = restore_marker(settings)
    aside = settings.home / "before-restore" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    if marker.is_file():
        aside = Path(json.loads(marker.read_text(encoding="utf-8"))["aside"])
    temporary = marker.with_suffix(".tmp")
    temporary.write_text(json.dumps({"backup": str(chosen.path), "aside": str(aside)}), encoding="utf-8")
    temporary.replace(marker)
    return aside


def _move_aside(settings: Settings, aside: Path) -> bool:
    """What an earlier attempt has moved already is not what is there now: that one is half of a backup.

    Raises:
        StackError: a folder cannot be moved, as a mounted disk cannot.
    """
    pairs = {settings.home / name: aside / name for name in _REPLACED}
    if (lake := backup.local_lake(settings)) is not None:
        own = settings.home in lake.parents
        pairs[lake] = aside / "lake" if own else lake.with_name(f"{lake.name}.before-restore-{aside.name}")
    for there, kept in pairs.items():
        if not there.exists():
            continue
        if kept.exists():
            shutil.rmtree(there)
            continue
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            there.rename(kept)
        except OSError as error:
            raise StackError(f"cannot move {there} to {kept}: {error.strerror}; move or empty it by hand") from error
    return any(kept.exists() for kept in pairs.values())


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
