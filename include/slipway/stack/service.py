"""One part of the stack in a container of its own: what has to be there before all of them, and each one's start.

A container runs the very command, with the very environment, that Supervisor runs embedded; see `programs`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack import airflow, alertmanager, gateway, postgres, prometheus
from slipway.stack.programs import base_environment, contained
from slipway.stack.start import check_whole

__all__ = ["FOLDERS", "prepare", "run"]

Report = Callable[[str], None]

FOLDERS = (
    *("airflow", "alertmanager", "bentoml", "envoy", "lake", "logs/airflow", "mlflow/artifacts"),
    *("prometheus/targets", "spool"),
)


def prepare(settings: Settings, report: Report) -> None:
    """Makes folders, databases, schemas and the files that other programs start from; a repeat changes nothing.

    Raises:
        StackError: Postgres does not answer or refuses, a folder cannot be written, a migration fails, or a restore was
            interrupted.
    """
    from slipway.adapters.postgres import migrate

    check_whole(settings)
    try:
        for folder in FOLDERS:
            (settings.home / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(f"cannot write {error.filename}: {error.strerror}; the volume has another owner") from error
    airflow.prepare(settings)
    gateway.write_bootstrap(settings)
    prometheus.write_config(settings)
    alertmanager.write_config(settings)
    postgres.await_server(settings)
    made = postgres.create_databases(settings)
    report(f"databases made: {', '.join(made)}" if made else "all databases are there")
    if airflow.needs_migration(settings):
        report("migrating Airflow's database")
        airflow.migrate(settings, base_environment(settings))
    migrate(settings.database_uri("slipway"))
    report("schemas are up to date")


def run(settings: Settings, name: str) -> NoReturn:
    """Becomes one program of the stack.

    Raises:
        NotFoundError: no such program.
        StackError: a secret is missing.
    """
    program = contained(settings, name)
    # Compose gives the empty text for what nobody set, which some libraries take for a value.
    given = {name: value for name, value in base_environment(settings).items() if value}
    environment = {**given, **program.environment}
    os.chdir(settings.home)
    os.execve(program.command[0], program.command, environment)  # noqa: S606
