"""Backup and restore where the parts have machines of their own: a Postgres elsewhere, volumes that cannot be moved."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from slipway.adapters.postgres_dump import PostgresDump
from slipway.errors import StackError, StoreError
from slipway.settings import Settings
from slipway.stack import postgres
from slipway.stack.aside import empty_folder, filled_databases
from slipway.stack.backup import take_backup
from slipway.stack.restore import kept_env, restore_stack
from slipway.stack.service import prepare
from slipway.stack.start import restore_marker
from stack.test_backup import FILES, ask, contents, filled, quiet

__all__ = ["filled"]

ENV = "SLIPWAY_CONTROL_KEY=kept\n"


@pytest.fixture
def elsewhere(filled: Settings, tmp_path: Path) -> Iterator[Settings]:
    """The stack as its containers see it, with its Postgres running."""
    with postgres.serving(filled):
        update = {"postgres_host": "127.0.0.1", "runtime": "docker", "backup_dir": tmp_path / "backups"}
        yield filled.model_copy(update=update)


def kept_names(settings: Settings) -> list[str]:
    rows = ask(settings, "postgres", "select datname from pg_database where datname like '%%_before_%%' order by 1")
    return [str(row[0]) for row in rows]


@pytest.mark.services
def test_a_server_elsewhere_keeps_what_it_held_under_other_names(elsewhere: Settings) -> None:
    made = take_backup(elsewhere, quiet, env=ENV)
    assert kept_env(made) == ENV
    ask(elsewhere, "mlflow", "insert into runs values ('a later run')")
    said: list[str] = []
    restore_stack(elsewhere, made, said.append)
    assert contents(elsewhere.home) == FILES
    assert ask(elsewhere, "mlflow", "select name from runs") == [("a run",)]
    names = kept_names(elsewhere)
    assert [name.partition("_before_")[0] for name in names] == ["airflow", "mlflow", "slipway"]
    assert len(ask(elsewhere, names[1], "select name from runs")) == 2
    assert f"database mlflow: what was there before is now {names[1]}" in said


@pytest.mark.services
def test_an_empty_server_is_filled_and_keeps_nothing(elsewhere: Settings) -> None:
    made = take_backup(elsewhere, quiet)
    for name in postgres.DATABASES:
        ask(elsewhere, "postgres", f'drop database "{name}"')
    ask(elsewhere, "postgres", "create database slipway")  # as Postgres's own image does
    restore_stack(elsewhere, made, quiet)
    assert set(filled_databases(elsewhere)) == set(postgres.DATABASES)
    assert kept_names(elsewhere) == []


@pytest.mark.services
def test_an_interrupted_restore_keeps_what_was_there_at_first(
    elsewhere: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = take_backup(elsewhere, quiet)
    whole = PostgresDump.restore

    def refused(self: PostgresDump, archive: Path, database: str) -> None:
        if database == "airflow":
            raise StoreError("the server went away")
        whole(self, archive, database)

    with monkeypatch.context() as patched:
        patched.setattr(PostgresDump, "restore", refused)
        with pytest.raises(StoreError):
            restore_stack(elsewhere, made, quiet)
    with pytest.raises(StackError, match=f"finish it with `make compose-restore FROM={made.name}`"):
        prepare(elsewhere, quiet)
    first = kept_names(elsewhere)
    restore_stack(elsewhere, made, quiet)
    assert kept_names(elsewhere) == first
    assert set(filled_databases(elsewhere)) == set(postgres.DATABASES)
    assert not restore_marker(elsewhere).exists()


@pytest.mark.services
def test_a_stack_with_sessions_is_not_replaced(elsewhere: Settings) -> None:
    made = take_backup(elsewhere, quiet)
    with postgres.connection(elsewhere, "mlflow"), pytest.raises(StackError, match=r"mlflow.*compose down"):
        restore_stack(elsewhere, made, quiet)
    assert kept_names(elsewhere) == []


@pytest.mark.services
def test_a_stack_that_never_started_is_not_backed_up(elsewhere: Settings) -> None:
    ask(elsewhere, "postgres", "drop database airflow")
    with pytest.raises(StackError, match="no database airflow"):
        take_backup(elsewhere, quiet)


@pytest.mark.services
def test_what_cannot_be_renamed_stays_on_its_volume(elsewhere: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel answers for a mounted folder; only root could mount one here."""
    made = take_backup(elsewhere, quiet)
    rename, mounted = Path.rename, {elsewhere.home / name for name in ("spool", "lake", "mlflow")}

    def busy(self: Path, target: Path) -> Path:
        if self in mounted:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", busy)
    (elsewhere.home / "lake" / "later.parquet").write_text("later rows")
    aside = restore_stack(elsewhere, made, quiet)
    assert contents(elsewhere.home).items() >= FILES.items()
    assert aside is not None
    kept = elsewhere.home / "lake" / ".before-restore" / aside.name
    assert (kept / "later.parquet").read_text() == "later rows"
    assert not (elsewhere.home / "lake" / "later.parquet").exists()
    take_backup(elsewhere, quiet)
    names = [path.name for path in (made.path.parent).rglob("later.parquet")]
    assert names == [], "the next backup is of what is in use"


def test_a_folder_that_was_half_emptied_is_emptied_further_and_never_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1", "2"):
        (tmp_path / name).write_text("at first")
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        raise KeyboardInterrupt(moved)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            empty_folder(tmp_path, "stamp")
    kept = empty_folder(tmp_path, "stamp")
    assert kept is not None
    assert {path.name: path.read_text() for path in kept.iterdir()} == {"1": "at first", "2": "at first"}
    (tmp_path / "1").write_text("half of a backup")
    assert empty_folder(tmp_path, "stamp") == kept
    assert (kept / "1").read_text() == "at first"
    assert [path.name for path in tmp_path.iterdir()] == [".before-restore"]
