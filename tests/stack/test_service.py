"""What containers start: the health check, the list of services, compose's commands, secrets for a file elsewhere."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from slipway.cli import root
from slipway.errors import NotFoundError
from slipway.settings import Settings
from slipway.stack import compose, gateway, service
from slipway.stack.compose import command_for
from slipway.stack.health import connected
from slipway.stack.health import main as health
from slipway.stack.programs import contained
from slipway.stack.secrets import SECRETS


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server that says what Airflow's health page says; everything but two paths is missing."""
    pages = {"/ok": {}, "/health": {"scheduler": {"status": "healthy"}, "triggerer": {"status": None}}}

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(pages.get(self.path, {})).encode()
            self.send_response(200 if self.path in pages else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("paths", "code"),
    [
        (["/ok"], 0),
        (["/ok", "/nothing"], 1),
        (["/health#scheduler"], 0),
        (["/health#triggerer"], 1),
        (["/health#dag_processor"], 1),
        ([], 1),
    ],
)
def test_a_container_is_healthy_when_all_pages_say_so(address: str, paths: list[str], code: int) -> None:
    assert health([address + path for path in paths]) == code


def test_a_container_whose_port_is_closed_is_not_healthy() -> None:
    assert health(["http://127.0.0.1:9/"]) == 1


def test_a_worker_is_healthy_while_it_holds_a_connection_to_its_broker(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    head = "  sl  local_address rem_address   st tx_queue rx_queue\n"
    table.write_text(head + "   0: 020011AC:C350 030011AC:18EB 01 00000000:00000000\n")
    assert connected(6379, table)
    assert not connected(5432, table)
    table.write_text(head + "   0: 020011AC:C350 030011AC:18EB 06 00000000:00000000\n")
    assert not connected(6379, table)


def test_the_executor_celery_hands_tasks_over_by_redis(settings: Settings) -> None:
    local = contained(settings, "airflow-scheduler").environment
    assert local["AIRFLOW__CORE__EXECUTOR"] == "slipway_executor.LocalExecutor"
    assert local["AIRFLOW__CORE__PARALLELISM"] == "4"
    celery = settings.model_copy(update={"executor": "celery", "redis_host": "redis"})
    worker = contained(celery, "airflow-worker")
    assert worker.environment["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert worker.environment["AIRFLOW__CORE__PARALLELISM"] == "32"  # over all workers
    more = contained(celery.model_copy(update={"airflow_parallelism": 64}), "airflow-scheduler")
    assert more.environment["AIRFLOW__CORE__PARALLELISM"] == "64"
    assert "@redis:6379/" in worker.environment["AIRFLOW__CELERY__BROKER_URL"]
    assert worker.command[-5:-3] == ("celery", "worker")


def test_one_setting_moves_lake_and_artefacts_to_s3(settings: Settings) -> None:
    assert settings.lake == str(settings.home / "lake")
    moved = settings.model_copy(update={"s3_url": "s3://models/slipway/"})
    assert moved.lake == "s3://models/slipway/lake"
    assert "s3://models/slipway/mlflow" in contained(moved, "mlflow").command
    assert moved.model_copy(update={"lake_url": "gs://elsewhere"}).lake == "gs://elsewhere"


def test_services_run_what_supervisor_runs(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"host": "0.0.0.0", "mlflow_host": "mlflow", "postgres_host": "db"})
    airflow = contained(elsewhere, "airflow-scheduler").environment
    assert airflow["MLFLOW_TRACKING_URI"] == "http://mlflow:5000"
    assert "@db:" in airflow["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    assert "0.0.0.0" in contained(elsewhere, "mlflow").command


def test_mlflows_container_needs_no_secret_but_its_own(settings: Settings) -> None:
    bare = settings.model_copy(update=dict.fromkeys(("airflow_fernet_key", "control_key", "supervisor_password")))
    assert "MLFLOW_BACKEND_STORE_URI" in contained(bare, "mlflow").environment


def test_an_unknown_service_is_refused_with_the_known_ones(settings: Settings) -> None:
    with pytest.raises(NotFoundError, match="keeper"):
        service.run(settings, "postgres")


def test_the_gateways_container_has_no_file_for_its_log(settings: Settings) -> None:
    on = settings.model_copy(update={"access_log": "file"})
    assert gateway.access_log(on) == settings.log_dir / "access.log"
    assert gateway.access_log(on.model_copy(update={"runtime": "docker"})) == gateway.STDOUT


def test_commands_for_the_container_stack() -> None:
    docker = ["docker", "compose"]
    assert command_for(["models"], docker, terminal=False) == [*docker, "exec", "-T", "keeper", "slipway", "models"]
    assert command_for(["run", "iris_data"], docker, terminal=True)[2:4] == ["exec", "keeper"]
    assert command_for(["status"], docker, terminal=True) == [*docker, "ps"]
    assert command_for(["logs", "keeper", "-n", "5"], docker, terminal=True)[-3:] == ["keeper", "--tail", "5"]
    assert command_for(["down"], docker, terminal=True) == ["make", "compose-down"]
    assert command_for(["backup", "--keep", "3"], docker, terminal=True) == ["make", "compose-backup", "ARGS=--keep 3"]
    reading = ["restore", "--check", "20261121T080000Z"]
    assert command_for(reading, docker, terminal=True)[1:] == ["compose-read-backups", f"ARGS={' '.join(reading)}"]
    assert command_for(["restore", "x", "--no-start"], docker, terminal=True)[1:] == [
        "compose-restore",
        "FROM=x",
        "NO_START=1",
    ]


@pytest.mark.parametrize("given", [None, "elsewhere.env"])
def test_compose_is_told_of_an_env_file_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    (tmp_path / "docker-compose.yml").touch()
    program = tmp_path / "docker"
    program.write_text('#!/bin/sh\ntest "$2" = version || echo "$@" > told\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("SLIPWAY_ENV_FILE", raising=False)
    if given:
        monkeypatch.setenv("SLIPWAY_ENV_FILE", given)
    assert compose.run(["status"], tmp_path) == 0
    told = (tmp_path / "told").read_text().split()
    assert told == ["compose", *(["--env-file", given] if given else []), "ps"]


def test_secrets_for_a_file_elsewhere_are_only_those_that_it_lacks() -> None:
    first, *others = SECRETS
    printed = CliRunner().invoke(root, ["secrets", "--missing-from", "-"], input=f"{first}=kept\nOTHER=1\n")
    lines = dict(line.split("=", 1) for line in printed.stdout.splitlines())
    assert set(lines) == set(others)
    assert all(len(value) >= 20 for value in lines.values())
