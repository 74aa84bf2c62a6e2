"""The whole container stack, once for the session, in a Docker daemon of the tests' own."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from compose.daemon import HOME, Docker, DockerError, own_daemon
from compose.images import build_all
from slipway.settings import PROJECT_DIR

AIRFLOW = ("airflow-api-server", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")
CORE = frozenset({"postgres", "init", "mlflow", *AIRFLOW, "gateway", "serving-base", "keeper", "agent", "statsd"})
BENTO_LABEL = "label=slipway.model"


def wait_until(condition: Callable[[], Any], timeout_seconds: float, what: str) -> Any:
    """The first true value of `condition`; fails the test when it does not come in time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_seconds:.0f} s"
        time.sleep(0.3)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


@dataclass
class Stack:
    """The running stack and its doors."""

    docker: Docker
    ports: dict[str, int]

    def make(self, *arguments: str, timeout: float = 900) -> str:
        """A make target, as a person types it."""
        command = ["make", *arguments]
        done = subprocess.run(
            command,
            cwd=PROJECT_DIR,
            env=self.docker.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def cli(self, *arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """`slipway --stack compose …` on this machine."""
        command = [str(PROJECT_DIR / ".venv/bin/slipway"), "--stack", "compose", *arguments]
        done = subprocess.run(
            command,
            cwd=PROJECT_DIR,
            env=self.docker.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done

    @property
    def gateway(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.ports['gateway']}", timeout=30, trust_env=False)

    def containers(self) -> list[dict[str, Any]]:
        """What `docker inspect` says of every container of the stack, bentos included."""
        ids = self.docker("ps", "--all", "--quiet", "--no-trunc").split()
        return list(json.loads(self.docker("inspect", *ids))) if ids else []

    def container(self, name: str) -> dict[str, Any]:
        """A service's container, or a bento's by its name."""
        for one in self.containers():
            labels = one["Config"]["Labels"] or {}
            if name in (labels.get("com.docker.compose.service"), one["Name"].lstrip("/")):
                return one
        raise AssertionError(f"no container of {name}")

    def models(self) -> dict[str, dict[str, Any]]:
        with self.gateway as client:
            return {entry["model"]: entry for entry in client.get("/models/info").json()["models"]}


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
    try:
        with own_daemon(environment) as docker:
            build_all(docker, say, CORE)
            running = Stack(docker, ports)
            running.make("compose-secrets")
            # For commands that read `.env`, whose place a test must not take.
            lines = (line.partition("=") for line in env_file.read_text().splitlines() if "=" in line)
            docker.environment.update({name: value for name, _, value in lines})
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
        done = subprocess.run(
            ["docker", "logs", one["Id"]], env=stack.docker.environment, capture_output=True, text=True, check=False
        )
        (folder / f"{one['Name'].lstrip('/')}.log").write_text(done.stdout + done.stderr)
