"""The running container stack as tests see it: its commands, its containers, its answers, its log."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from compose.daemon import Docker
from slipway.adapters.certificate import trust_exactly
from slipway.settings import PROJECT_DIR

__all__ = ["Stack", "wait_until"]

_UNITS = {"B": 1e-6, "KiB": 1024 / 1e6, "MiB": 1024**2 / 1e6, "GiB": 1024**3 / 1e6}
_LOGGED_IDS = """
import json
from datetime import UTC, datetime, timedelta
from slipway.wiring import wiring

now = datetime.now(UTC)
frame = wiring().lake.predictions("iris", now - timedelta(hours=2), now + timedelta(hours=1))
print(json.dumps(frame["request_id"].tolist()))
"""
_ASK_AGENT = """
import json, os, sys
import httpx

token, path, body = json.load(sys.stdin)
token = os.environ["SLIPWAY_AGENT_TOKEN"] if token is None else token
headers = {"authorization": f"Bearer {token}"} if token else {}
answer = httpx.post(f"http://agent:9700{path}", json=body, headers=headers, timeout=60)
print(answer.status_code)
"""


def wait_until(condition: Callable[[], Any], timeout_seconds: float, what: str) -> Any:
    """The first true value of `condition`; fails the test when it does not come in time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_seconds:.0f} s"
        time.sleep(0.3)


@dataclass
class Stack:
    """The running stack and its doors."""

    docker: Docker
    ports: dict[str, int]
    env_file: Path
    certificate: str | None = None  # in PEM, once the gateway speaks HTTPS

    def make(self, *arguments: str, timeout: float = 900) -> str:
        """A make target, as a person types it."""
        return self._run(["make", *arguments], True, timeout).stdout

    def cli(self, *arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """`slipway --stack compose …` on this machine."""
        command = [str(PROJECT_DIR / ".venv/bin/slipway"), "--stack", "compose", *arguments]
        return self._run(command, check, timeout)

    def _run(self, command: list[str], check: bool, timeout: float) -> subprocess.CompletedProcess[str]:
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
        scheme, verify = ("https", trust_exactly(self.certificate)) if self.certificate else ("http", True)
        base_url = f"{scheme}://127.0.0.1:{self.ports['gateway']}"
        return httpx.Client(base_url=base_url, verify=verify, timeout=30, trust_env=False)

    def secret(self, name: str) -> str:
        """A line's value in the stack's env file."""
        lines = (line.partition("=") for line in self.env_file.read_text().splitlines())
        return next(value for key, _, value in lines if key == name)

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

    @property
    def live_version(self) -> str:
        return str(self.models()["iris"]["live_version"])

    @property
    def weights(self) -> dict[str, int]:
        return {slot: facts["weight"] for slot, facts in self.models()["iris"]["slots"].items()}

    def bentos(self) -> list[dict[str, Any]]:
        return [one for one in self.containers() if "slipway.model" in (one["Config"]["Labels"] or {})]

    def memory_mb(self) -> dict[str, float]:
        """What each container's processes hold, in MB; the page cache that Linux would give back is left out."""
        lines = self.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}").splitlines()
        found = (re.match(r"(\S+) ([0-9.]+)([KMG]?i?B)", line) for line in lines)
        return {match[1]: float(match[2]) * _UNITS[match[3]] for match in found if match}

    def in_keeper(self, code: str, stdin: str = "") -> str:
        """What a Python program prints in the keeper's container."""
        keeper = self.container("keeper")["Id"]
        return self.docker("exec", "-i", keeper, "/opt/venv/bin/python", "-c", code, stdin=stdin)

    def logged_ids(self) -> list[str]:
        """Request ids of iris in the lake, without those of shadow requests."""
        return list(json.loads(self.in_keeper(_LOGGED_IDS).splitlines()[-1]))

    def ask_agent(self, path: str, body: dict[str, Any], token: str | None = None) -> int:
        """The status of the slot agent's answer; without a token its own is used, with an empty one none."""
        return int(self.in_keeper(_ASK_AGENT, json.dumps([token, path, body])))

    def log_of(self, name: str) -> str:
        """What a service's container has written."""
        command = ["docker", "logs", self.container(name)["Id"]]
        done = subprocess.run(command, env=self.docker.environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr
