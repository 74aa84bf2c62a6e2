"""A real MLflow server for tests: SQLite, artefacts through the server, a free loopback port."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contracts.services import eventually, free_port, stop


@contextlib.contextmanager
def mlflow_server(folder: Path, artefacts: str) -> Iterator[str]:
    """The address of a server that keeps its artefacts at a path or URL."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", artefacts]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **quiet}, stdout=log, stderr=log)
    try:
        uri = f"http://127.0.0.1:{port}"
        eventually(lambda: httpx.get(f"{uri}/health").is_success, 120, "MLflow's health")
        yield uri
    finally:
        stop(process)


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that lives as long as the test session."""
    folder = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(folder, str(folder / "artefacts")) as uri:
        yield uri
