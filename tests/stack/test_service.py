"""What containers start: the health check, the list of services, compose's commands, secrets for a file elsewhere."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from slipway.cli import root
from slipway.errors import NotFoundError
from slipway.settings import Settings
from slipway.stack import service
from slipway.stack.compose import command_for
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


def test_commands_for_the_container_stack() -> None:
    compose = ["docker", "compose"]
    assert command_for(["models"], compose, terminal=False) == [*compose, "exec", "-T", "keeper", "slipway", "models"]
    assert command_for(["run", "iris_data"], compose, terminal=True)[2:4] == ["exec", "keeper"]
    assert command_for(["status"], compose, terminal=True) == [*compose, "ps"]
    assert command_for(["logs", "keeper", "-n", "5"], compose, terminal=True)[-3:] == ["keeper", "--tail", "5"]
    assert command_for(["down"], compose, terminal=True) == ["make", "compose-down"]


def test_secrets_for_a_file_elsewhere_are_only_those_that_it_lacks() -> None:
    first, *others = SECRETS
    printed = CliRunner().invoke(root, ["secrets", "--missing-from", "-"], input=f"{first}=kept\nOTHER=1\n")
    lines = dict(line.split("=", 1) for line in printed.stdout.splitlines())
    assert set(lines) == set(others)
    assert all(len(value) >= 20 for value in lines.values())
