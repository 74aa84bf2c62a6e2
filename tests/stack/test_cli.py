from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from slipway.cli import root
from slipway.settings import PROJECT_DIR, Settings

HEAVY = ("airflow", "pandas", "sklearn", "mlflow", "evidently", "great_expectations", "numpy", "sqlalchemy", "httpx")


def _run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_DIR / "include"), **env}
    return subprocess.run(
        [sys.executable, "-m", "slipway.cli", *arguments], env=environment, capture_output=True, text=True, check=False
    )


def _imported(code: str, names: tuple[str, ...], **env: str) -> str:
    """Which of the libraries some code imports."""
    report = f"\nimport sys; print([name for name in {names!r} if name in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT_DIR / "include"), **env}
    done = subprocess.run(
        [sys.executable, "-c", code + report], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_help_imports_no_heavy_library() -> None:
    code = "from slipway.cli import root\ntry: root(['--help'])\nexcept SystemExit: pass"
    assert _imported(code, HEAVY) == "[]"


def test_a_rollback_opens_neither_lake_nor_registry(tmp_path: Path) -> None:
    code = "from slipway.wiring import wiring\nwiring().releases"
    secrets = {"SLIPWAY_POSTGRES_PASSWORD": "a-password", "SLIPWAY_SUPERVISOR_PASSWORD": "a-password"}
    nowhere = {"SLIPWAY_HOME": str(tmp_path), "SLIPWAY_LAKE_URL": "nosuch://bucket/lake"}
    names = ("airflow", "duckdb", "fsspec", "mlflow", "numpy", "pandas", "pyarrow", "rich", "sklearn")
    assert _imported(code, names, **secrets, **nowhere) == "[]"


@pytest.mark.parametrize("name", ["up", "down", "status", "logs", "doctor"])
def test_every_command_of_the_stack_explains_itself(name: str) -> None:
    result = CliRunner().invoke(root, [name, "--help"])
    assert result.exit_code == 0
    assert root.get_command(click.Context(root), name).get_short_help_str()  # type: ignore[union-attr]


def test_an_error_is_one_line_and_code_1(tmp_path: Path) -> None:
    done = _run("status", SLIPWAY_HOME=str(tmp_path / "home"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"slipway: no \w+ in .*; run `slipway up` once, it generates the secrets\n", done.stderr)


def test_a_wrong_setting_is_named(tmp_path: Path) -> None:
    done = _run("status", SLIPWAY_HOME=str(tmp_path), SLIPWAY_GATEWAY_PORT="many")
    assert done.returncode == 1
    assert done.stderr.startswith("slipway: SLIPWAY_GATEWAY_PORT: ")
    assert len(done.stderr.splitlines()) == 1


def test_status_of_a_stack_that_is_down_exits_1(settings: Settings, free_port: int) -> None:
    done = _run("status", SLIPWAY_HOME=str(settings.home), SLIPWAY_SUPERVISOR_PORT=str(free_port))
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["part", "state", "pid", "uptime", "address"]
    assert all(line.split()[1] == "stopped" for line in lines[1:])
    assert {"postgres", "mlflow", "airflow-scheduler", "envoy", "keeper"} <= {line.split()[0] for line in lines[1:]}


def test_up_names_a_taken_port_and_its_owner_and_starts_nothing(settings: Settings, free_port: int) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        done = _run(
            "up",
            SLIPWAY_HOME=str(settings.home),
            SLIPWAY_SUPERVISOR_PORT=str(free_port),
            SLIPWAY_MLFLOW_PORT=str(port),
        )
    assert done.returncode == 1
    assert f"port {port} for mlflow is held by process {os.getpid()} (" in done.stderr
    assert not (settings.home / "postgres").exists()
