"""The whole container stack, once for the session, in a Docker daemon of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from compose.daemon import HOME, DockerError, own_daemon
from compose.images import build_all
from compose.running import Stack
from loop.conftest import free_ports

AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
CORE = {"postgres", "init", "mlflow", *AIRFLOW, "gateway", "serving-base", "keeper", "agent", "statsd"}
STARTED = frozenset(
    {*CORE, "redis", "airflow-worker", "prometheus", "alertmanager", "node-exporter", "postgres-exporter"}
)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    names = ("gateway", "airflow", "mlflow")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    HOME.mkdir(parents=True, exist_ok=True)
    env_file = HOME / "env"
    env_file.unlink(missing_ok=True)
    environment = {f"SLIPWAY_{name.upper()}_PORT": str(port) for name, port in ports.items()}
    environment["SLIPWAY_ENV_FILE"] = str(env_file)
    environment["SLIPWAY_AIRFLOW_URL"] = f"http://127.0.0.1:{ports['airflow']}"
    environment["SLIPWAY_COMPOSE_BACKUP_DIR"] = str(HOME / "backups")
    try:
        with own_daemon(environment) as docker:
            build_all(docker, say, STARTED)
            running = Stack(docker, ports, env_file)
            running.make("compose-secrets")
            try:
                yield running
            finally:
                _keep_logs(running)
                running.make("down-volumes", "YES=1")
    except DockerError as error:
        pytest.exit(f"no container stack can run here: {error}", returncode=1)


def say(line: str) -> None:
    print(line, flush=True)


def _keep_logs(stack: Stack) -> None:
    folder = HOME / "logs"
    folder.mkdir(exist_ok=True)
    for one in stack.containers():
        name = one["Name"].lstrip("/")
        (folder / f"{name}.log").write_text(stack.log_of(name))
