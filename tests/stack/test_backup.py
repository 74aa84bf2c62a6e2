"""Backup and restore of databases and files with a real Postgres; the whole stack does it in tests/loop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from contracts.services import free_port
from slipway.adapters.backup_folder import Backup
from slipway.adapters.postgres import migrate
from slipway.errors import ArtefactError, StackError
from slipway.settings import Settings
from slipway.stack import postgres, restore
from slipway.stack.backup import take_backup
from slipway.stack.restore import place_env, restore_stack
from slipway.stack.start import restore_marker, start_stack

pytestmark = pytest.mark.services
FILES = {
    "mlflow/artifacts/1/run/model.onnx": "a model",
    "bentoml/bentos/iris/v1/bento.yaml": "a bento",
    "bentoml/bentos/iris/v1/src/requirements.lock": "whose digest counts every file",
    "spool/predictions/iris/20261121T080000.seg": "whole",
    "spool/predictions/iris/20261121T090000.open": "half",
    "spool/tally/iris/1.tally": "counts",
    "lake/predictions/model=iris/date=2026-11-21/1.parquet": "rows",
    "lake/counts/model=iris/date=2026-11-21/1.parquet": "accounts",
}
PACKAGE = """insert into packages (model, version, bento_tag, path, digest, evidence, created_at)
    values ('iris', '1', 'iris:v1', %s, 'd', '{}', now())"""


def quiet(_: str) -> None:
    pass


def ask(settings: Settings, database: str, query: str, *values: str) -> list[tuple[object, ...]]:
    with postgres.connection(settings, database) as opened, opened.cursor() as cursor:
        cursor.execute(query, values)
        return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture
def filled(settings: Settings) -> Settings:
    """A stack that is down and has something in every place."""
    chosen = settings.model_copy(update={"postgres_port": free_port(), "supervisor_port": free_port()})
    for below, text in FILES.items():
        path = chosen.home / below
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (chosen.home / "lake" / ".compaction.lock").touch()
    postgres.initialise(chosen)
    with postgres.serving(chosen):
        fill_databases(chosen)
    return chosen


def fill_databases(settings: Settings) -> None:
    postgres.create_databases(settings)
    migrate(settings.database_uri())
    ask(settings, "slipway", PACKAGE, str(settings.home / "bentoml" / "bentos" / "iris" / "v1"))
    ask(settings, "mlflow", "create table runs as select 'a run' as name")
    ask(settings, "airflow", "create table dag_run as select 'a DAG run' as name")


@pytest.fixture
def taken(filled: Settings, tmp_path: Path) -> tuple[Settings, Backup]:
    settings = filled.model_copy(update={"backup_dir": tmp_path / "backups"})
    return settings, take_backup(settings, quiet)


def contents(home: Path) -> dict[str, str]:
    parts = ("mlflow", "bentoml", "spool", "lake")
    files = [path for part in parts for path in (home / part).rglob("*") if path.is_file() and path.name[0] != "."]
    return {str(path.relative_to(home)): path.read_text() for path in files}


def package_path(settings: Settings) -> object:
    with postgres.serving(settings):
        return ask(settings, "slipway", "select path from packages")[0][0]


def test_a_destroyed_home_comes_back(taken: tuple[Settings, Backup]) -> None:
    settings, made = taken
    env = (settings.home / ".env").read_text()
    shutil.rmtree(settings.home)
    assert place_env(made)
    assert restore_stack(settings, made, quiet) is None
    assert contents(settings.home) == FILES
    assert (settings.home / ".env").read_text() == env
    assert (settings.home / ".env").stat().st_mode & 0o777 == 0o600
    with postgres.serving(settings):
        assert ask(settings, "mlflow", "select name from runs") == [("a run",)]
        assert ask(settings, "airflow", "select name from dag_run") == [("a DAG run",)]
        assert ask(settings, "slipway", "select version from packages") == [("1",)]


def test_what_was_there_is_moved_aside_and_does_not_mix(taken: tuple[Settings, Backup]) -> None:
    settings, made = taken
    assert not place_env(made), "an installation keeps its own secrets"
    later = settings.home / "lake" / "predictions" / "model=iris" / "date=2026-11-22"
    later.mkdir()
    (later / "2.parquet").write_text("later rows")
    aside = restore_stack(settings, made, quiet)
    assert contents(settings.home) == FILES
    assert aside is not None
    assert (aside / "lake" / later.relative_to(settings.home / "lake") / "2.parquet").read_text() == "later rows"
    assert (aside / "postgres" / "PG_VERSION").is_file()


def test_another_home_finds_its_bentos(taken: tuple[Settings, Backup], tmp_path: Path) -> None:
    settings, made = taken
    other = settings.model_copy(update={"home": tmp_path / "other"})
    restore_stack(other, made, quiet)
    assert package_path(other) == str(tmp_path / "other" / "bentoml" / "bentos" / "iris" / "v1")


def test_a_restore_that_was_interrupted_is_finished_by_the_next(
    taken: tuple[Settings, Backup], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, made = taken

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(restore, "_place_databases", killed)
        with pytest.raises(KeyboardInterrupt):
            restore_stack(settings, made, quiet)
    assert json.loads(restore_marker(settings).read_text())["backup"] == str(made.path)
    with pytest.raises(StackError, match=f"finish it with `slipway restore {made.path}`"):
        start_stack(settings, quiet)
    aside = restore_stack(settings, made, quiet)
    assert contents(settings.home) == FILES
    assert aside is not None
    assert contents(aside) == FILES, "what was there at first, not what the first attempt left"
    assert not restore_marker(settings).exists()
    assert len(list(aside.parent.iterdir())) == 1


def test_a_damaged_backup_changes_nothing(taken: tuple[Settings, Backup]) -> None:
    settings, made = taken
    (made.path / "postgres" / "slipway.dump").write_bytes(b"PGDMP")
    with pytest.raises(ArtefactError, match=r"slipway\.dump"):
        restore_stack(settings, made, quiet)
    assert contents(settings.home) == FILES
    assert not restore_marker(settings).exists()


def test_a_running_stack_is_not_replaced(taken: tuple[Settings, Backup]) -> None:
    settings, made = taken
    with postgres.serving(settings), pytest.raises(StackError, match="slipway down"):
        restore_stack(settings, made, quiet)
    assert contents(settings.home) == FILES


def test_an_open_segment_never_takes_the_place_of_the_sealed_one(filled: Settings) -> None:
    (filled.home / "spool" / "predictions" / "iris" / "20261121T080000.open").write_text("who")
    made = take_backup(filled, quiet)
    names = [path.name for path in (made.path / "spool").rglob("*") if path.is_file()]
    assert sorted(names) == ["1.tally", "20261121T080000.seg", "20261121T090000.open"]
    assert made.path.parent == filled.home / "backups"


def test_without_a_stack_there_is_nothing_to_take(settings: Settings) -> None:
    with pytest.raises(StackError, match="no stack"):
        take_backup(settings, quiet)


def test_a_full_disk_is_noticed_before_anything_is_written(filled: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**6}))
    with pytest.raises(StackError, match="SLIPWAY_BACKUP_DIR"):
        take_backup(filled, quiet)
    assert list((filled.home / "backups").glob("*/")) == []
