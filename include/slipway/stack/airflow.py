"""Airflow's part of the stack: its settings as environment variables, its login, its database schema."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

from slipway.adapters.whole_file import write_whole
from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack import postgres

__all__ = [
    "COMPONENTS",
    "LOGIN",
    "WORKER",
    "airflow_home",
    "clean",
    "clear_logs",
    "command",
    "environment",
    "migrate",
    "needs_migration",
    "prepare",
]

LOGIN = "admin"
# Everybody's name is their role: who administers, who acts on models, who only looks.
_USERS = {LOGIN: "admin", "operator": "op", "viewer": "viewer"}

# Both serve task logs over HTTP by default, on fixed ports; the api-server reads them from the shared folder.
COMPONENTS = {
    "airflow-api-server": ("api-server",),
    "airflow-scheduler": ("scheduler", "--skip-serve-logs"),
    "airflow-dag-processor": ("dag-processor",),
    "airflow-triggerer": ("triggerer", "--skip-serve-logs"),
}
# Of the executor celery, in containers only.
WORKER = {"airflow-worker": ("celery", "worker", "--skip-serve-logs", "--without-mingle", "--without-gossip")}


def airflow_home(settings: Settings) -> Path:
    return settings.home / "airflow"


def _password_file(settings: Settings) -> Path:
    return airflow_home(settings) / "passwords.json"


def command(*arguments: str) -> list[str]:
    """An `airflow` command of this environment."""
    return [sys.executable, "-m", "airflow", *arguments]


def _core(settings: Settings) -> dict[str, str]:
    return {
        "core__dags_folder": str(settings.project_dir / "dags"),
        "core__plugins_folder": str(settings.project_dir / "plugins"),
        "core__load_examples": "False",
        "core__dags_are_paused_at_creation": "False",
        "core__max_active_runs_per_dag": "1",
        "core__default_timezone": "utc",
        "core__fernet_key": settings.secret("airflow_fernet_key"),
        "core__auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "core__simple_auth_manager_users": ",".join(f"{name}:{role}" for name, role in _USERS.items()),
        "core__simple_auth_manager_passwords_file": str(_password_file(settings)),
        "core__execution_api_server_url": f"{settings.airflow_uri}/execution/",
        "core__lazy_load_plugins": "True",
        "logging__base_log_folder": str(settings.log_dir / "airflow"),
        "logging__logging_level": settings.log_level,
        "logging__colored_console_log": "False",
        "logging__namespace_levels": "great_expectations=WARNING",  # a hundred lines per validation otherwise
        "logging__dag_processor_child_process_log_directory": str(settings.log_dir / "airflow" / "dag_processor"),
    }


def _storage(settings: Settings) -> dict[str, str]:
    return {
        "database__sql_alchemy_conn": settings.database_uri("airflow", "psycopg2"),
        "database__sql_alchemy_conn_async": settings.database_uri("airflow", "asyncpg"),
        "database__sql_alchemy_pool_pre_ping": "True",
        "database__check_migrations": "False",  # `slipway up` has migrated before any component starts
    }


def _executor(settings: Settings) -> dict[str, str]:
    """Tasks as children of the scheduler, or of workers elsewhere that Redis hands them to."""
    if settings.executor == "local":
        parallelism = str(settings.airflow_parallelism or 4)
        return {"core__executor": "slipway_executor.LocalExecutor", "core__parallelism": parallelism}
    place = f"{settings.redis_host or settings.host}:{settings.redis_port}"
    return {
        "core__executor": "CeleryExecutor",
        "core__parallelism": str(settings.airflow_parallelism or 32),
        "celery__broker_url": f"redis://:{settings.secret('redis_password')}@{place}/0",
        "celery__result_backend": f"db+{settings.database_uri('airflow')}",
        "celery__worker_concurrency": "4",
        # A task of a killed worker is handed out again only by the scheduler, which knows whether it may be.
        "celery_broker_transport_options__visibility_timeout": "86400",
    }


def _web(settings: Settings) -> dict[str, str]:
    return {
        "api__base_url": settings.airflow_url or settings.airflow_uri,
        "api__host": settings.host,
        "api__port": str(settings.airflow_port),
        "api__workers": "1",
        "api__secret_key": settings.secret("airflow_secret_key"),
        "api__expose_config": "False",
        "api_auth__jwt_secret": settings.secret("airflow_jwt_secret"),
        "api_auth__jwt_issuer": "slipway",
    }


# Reaction times. A loop of the scheduler costs some 20 ms here, so four a second are cheap and a chain of
# tasks moves on three times as fast as with the default of one. A killed scheduler is noticed, and its tasks
# taken over, within half a minute rather than five.
_PACE = {
    "scheduler__scheduler_idle_sleep_time": "0.25",
    "scheduler__scheduler_health_check_threshold": "15",
    "scheduler__orphaned_tasks_check_interval": "15",
    "scheduler__task_instance_heartbeat_sec": "5",
    "scheduler__task_instance_heartbeat_timeout": "45",
    "scheduler__task_instance_heartbeat_timeout_detection_interval": "5",
    "scheduler__task_queued_timeout": "120",
    "scheduler__catchup_by_default": "False",
    "workers__execution_api_timeout": "30",  # of a laptop whose cores are all training
    "dag_processor__refresh_interval": "5",
    "dag_processor__min_file_process_interval": "15",
    "dag_processor__parsing_processes": "1",
    "triggerer__capacity": "100",
}


def environment(settings: Settings) -> dict[str, str]:
    """Everything an `airflow` command needs beside the process's own environment.

    Raises:
        StackError: the secrets were never generated.
    """
    metrics = {
        "metrics__statsd_on": "True",
        "metrics__statsd_host": settings.statsd_host or settings.host,
        "metrics__statsd_port": str(settings.statsd_port),
        "metrics__statsd_prefix": "airflow",
    }
    options = {**_core(settings), **_executor(settings), **_storage(settings), **_web(settings), **_PACE, **metrics}
    return {
        "AIRFLOW_HOME": str(airflow_home(settings)),
        "PYTHONPATH": str(settings.project_dir / "include"),
        "SLIPWAY_HOME": str(settings.home),
        "MLFLOW_TRACKING_URI": settings.mlflow_uri,
        **{f"AIRFLOW__{name.upper()}": value for name, value in options.items()},
    }


def prepare(settings: Settings) -> None:
    """Writes the password file of Airflow's simple login, with the passwords of the `.env` file."""
    target = _password_file(settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    passwords = {name: settings.secret(f"airflow_{name}_password") for name in _USERS}
    write_whole(target, json.dumps(passwords), 0o600)


def _stamp(settings: Settings) -> Path:
    return airflow_home(settings) / "migrated.json"


def _database_revision(settings: Settings) -> str | None:
    with postgres.connection(settings, "airflow") as connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass('alembic_version')")
        if cursor.fetchone()[0] is None:
            return None
        cursor.execute("select version_num from alembic_version")
        row = cursor.fetchone()
    return str(row[0]) if row else None


def needs_migration(settings: Settings) -> bool:
    """Whether `airflow db migrate` must run: another Airflow version, or a database it has not seen.

    The command takes six seconds even when it finds nothing to do, so its result is remembered.
    """
    try:
        stamp = json.loads(_stamp(settings).read_text())
    except (OSError, ValueError):
        return True
    version = importlib.metadata.version("apache-airflow-core")
    return bool(stamp != {"airflow": version, "revision": _database_revision(settings)})


def migrate(settings: Settings, base_environment: dict[str, str]) -> None:
    """Brings Airflow's database to the schema of the installed version.

    Raises:
        StackError: the migration failed; its output is in the log that the message names.
    """
    log = settings.log_dir / "airflow-migrate.log"
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            command("db", "migrate"),
            env={**base_environment, **environment(settings)},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.home,
            check=False,
        )
    if done.returncode != 0:
        raise StackError(f"airflow db migrate failed with code {done.returncode}; see {log}")
    version = importlib.metadata.version("apache-airflow-core")
    _stamp(settings).write_text(json.dumps({"airflow": version, "revision": _database_revision(settings)}))


def clean(settings: Settings, base_environment: dict[str, str], before: datetime) -> None:
    """Removes Airflow's rows about runs that ended before a time; what is newest of each workflow stays.

    Raises:
        StackError: it failed; its output is in the log that the message names.
    """
    log = settings.log_dir / "airflow-clean.log"
    arguments = ("--clean-before-timestamp", before.isoformat(), "--skip-archive", "--yes")
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(
            command("db", "clean", *arguments),
            env={**base_environment, **environment(settings)},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.home,
            check=False,
        )
    if done.returncode != 0:
        raise StackError(f"airflow db clean failed with code {done.returncode}; see {log}")


def clear_logs(settings: Settings, before: datetime) -> int:
    """Deletes the logs of runs, and of the dag-processor's days, whose newest line is older; how many folders."""
    folder = settings.log_dir / "airflow"
    old = [
        path
        for path in (*folder.glob("dag_id=*/run_id=*"), *folder.glob("dag_processor/*"))
        if path.is_dir() and not path.is_symlink() and _newest(path) < before.timestamp()
    ]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    return len(old)


def _newest(folder: Path) -> float:
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.lstat().st_mtime)
    return max(times)
