from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import pytest
import yaml

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack import airflow


def test_every_option_exists_in_the_installed_airflow(settings: Settings) -> None:
    described = yaml.safe_load((files("airflow") / "config_templates" / "config.yml").read_text())
    options = {
        f"AIRFLOW__{section}__{option}".upper() for section, body in described.items() for option in body["options"]
    }
    ours = {name for name in airflow.environment(settings) if name.startswith("AIRFLOW__")}
    assert ours - options == set()
    assert len(ours) > 30


def test_without_secrets_there_is_no_environment(settings: Settings) -> None:
    with pytest.raises(StackError, match="slipway up"):
        airflow.environment(settings.model_copy(update={"airflow_jwt_secret": None}))


def test_the_login_is_prepared_for_its_owner_alone(settings: Settings) -> None:
    airflow.prepare(settings)
    airflow.prepare(settings)
    path = airflow.environment(settings)["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"]
    with open(path) as file:
        users = ("admin", "operator", "viewer")
        assert json.load(file) == {name: settings.secret(f"airflow_{name}_password") for name in users}
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


def test_a_database_without_a_stamp_is_migrated(settings: Settings) -> None:
    assert airflow.needs_migration(settings)


def test_logs_of_old_runs_go_and_new_ones_stay(settings: Settings) -> None:
    runs = settings.log_dir / "airflow" / "dag_id=iris_data"
    now = datetime.now(UTC)
    for name, days in (("old", 40), ("new", 1)):
        folder = runs / f"run_id={name}" / "task_id=snapshot"
        folder.mkdir(parents=True)
        (folder / "attempt=1.log").write_text("a line")
        for path in (folder / "attempt=1.log", folder, folder.parent):
            os.utime(path, ((now - timedelta(days=days)).timestamp(),) * 2)
    assert airflow.clear_logs(settings, now - timedelta(days=30)) == 1
    assert [path.name for path in runs.iterdir()] == ["run_id=new"]
    assert airflow.clear_logs(settings, now - timedelta(days=30)) == 0
