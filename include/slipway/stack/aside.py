"""Make room for a restore and destroy nothing: what is there is kept under another name.

A folder is renamed. A mounted disk or volume cannot be, so what it holds moves into a hidden folder on it, which no
reader of the lake or the spool looks into. Databases of a server elsewhere are renamed on it. All of this may be
interrupted and repeated: what is kept already is what was there at first, and what lies in its old place since then is
half of a backup.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack import postgres

__all__ = ["empty_folder", "filled_databases", "kept_database", "rename_databases", "set_folder_aside"]

_HIDDEN = ".before-restore"
_STAYS = {_HIDDEN, "lost+found"}
_TABLES = """select exists (select from pg_class join pg_namespace on pg_namespace.oid = relnamespace
    where nspname <> 'information_schema' and not starts_with(nspname, 'pg_'))"""


def set_folder_aside(there: Path, kept: Path, stamp: str) -> Path | None:
    """Move a folder, or what is in it if it is a mounted one.

    Args:
        kept: where it goes when it can be renamed.
        stamp: names this restore.

    Returns:
        Where it is now; None if there was nothing.

    Raises:
        StackError: it cannot be moved.
    """
    if not there.exists():
        return kept if kept.exists() else None
    try:
        if kept.exists():
            shutil.rmtree(there)
            return kept
        if not any(there.iterdir()):  # as an image makes them in new volumes
            return None
        kept.parent.mkdir(parents=True, exist_ok=True)
        try:
            there.rename(kept)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            return empty_folder(there, stamp)
    except OSError as error:
        raise StackError(f"cannot move {there} to {kept}: {error.strerror}; move or empty it by hand") from error
    return kept


def empty_folder(there: Path, stamp: str) -> Path | None:
    """Move what is in a folder into a hidden one in it; where that is, or None if there was nothing."""
    kept = there / _HIDDEN / stamp
    content = [path for path in there.iterdir() if path.name not in _STAYS]
    if kept.exists():
        for path in content:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    else:
        # Has its name once all is in it: until then what lies outside is still what was there at first.
        moving = kept.with_suffix(".moving")
        moving.mkdir(parents=True, exist_ok=True)
        for path in content:
            path.rename(moving / path.name)
        moving.rename(kept)
    return kept if any(kept.iterdir()) else None


def filled_databases(settings: Settings) -> list[str]:
    """Those of the stack's databases that hold anything."""
    found = []
    for name in postgres.existing_databases(settings):
        with postgres.connection(settings, name) as opened, opened.cursor() as cursor:
            cursor.execute(_TABLES)
            if cursor.fetchone()[0]:
                found.append(name)
    return found


def kept_database(name: str, stamp: str) -> str:
    """What a database is called that was set aside."""
    return f"{name}_before_{stamp.lower()}"


def rename_databases(settings: Settings, names: Sequence[str], stamp: str) -> None:
    """Keep these databases under other names, and drop the stack's others.

    Raises:
        StackError: somebody uses one of them.
    """
    import psycopg2

    with postgres.connection(settings) as opened, opened.cursor() as cursor:
        cursor.execute("select datname from pg_database")
        there = {row[0] for row in cursor.fetchall()}
        for name in sorted(there & set(postgres.DATABASES)):
            kept = kept_database(name, stamp)
            first = name in names and kept not in there
            try:
                cursor.execute(f'alter database "{name}" rename to "{kept}"' if first else f'drop database "{name}"')
            except psycopg2.Error as error:
                reason = str(error).strip().splitlines()[0]
                raise StackError(f"cannot set the database {name} aside: {reason}; end what uses it") from error
