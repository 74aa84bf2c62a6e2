"""One whole embedded stack for the session, on its own ports and in its own folder."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from slipway.settings import PROJECT_DIR, Settings
from slipway.stack.processes import Process, find_stack_processes
from slipway.stack.stop import recorded_session

HOME = PROJECT_DIR / "var" / "test"
PORTS = (
    "gateway",
    "airflow",
    "mlflow",
    "prometheus",
    "alertmanager",
    "statsd",
    "statsd_metrics",
    "keeper_metrics",
    "envoy_admin",
    "postgres",
    "supervisor",
)


SLOTS = 40  # how many ports in a row a test stack's slots may take
# Below what the kernel gives to outgoing connections (32768 and up by default), or one of them could sit on the port
# of a slot that starts later; above the usual defaults, so that a stack of somebody's is left alone.
_PORTS = range(12_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Ports in a row that are free now; each call looks at another place."""
    for _ in range(100):
        first = random.randrange(_PORTS.start, _PORTS.stop - count)
        ports = list(range(first, first + count))
        with ExitStack() as held:
            try:
                for port in ports:
                    held.enter_context(closing(socket.socket())).bind(("127.0.0.1", port))
            except OSError:
                continue
            return ports
    raise RuntimeError(f"no {count} free ports in a row")


def wait_until(condition: Callable[[], Any], timeout_seconds: float, what: str) -> Any:
    """The first true value of `condition`; fails the test when it does not come in time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            value = condition()
        except (httpx.HTTPError, OSError, ValueError, KeyError):
            value = None
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(0.1)


@dataclass
class Stack:
    """The running stack as its user meets it: by command line and by HTTP."""

    home: Path
    env: dict[str, str]
    sessions: set[int] = field(default_factory=set)

    def cli(self, *arguments: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "slipway.cli", *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            pytest.fail(f"slipway {' '.join(arguments)} exited {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def settings(self) -> Settings:
        names = {f"SLIPWAY_{name.upper()}_PORT" for name in PORTS} | {"SLIPWAY_SLOT_PORT_BASE"}
        ports = {name.removeprefix("SLIPWAY_").lower(): int(self.env[name]) for name in names}
        return Settings(_env_file=self.home / ".env", home=self.home, **ports)  # type: ignore[call-arg,arg-type]

    @property
    def gateway(self) -> httpx.Client:
        return httpx.Client(base_url=self.settings().gateway_uri, timeout=30)

    def models(self) -> dict[str, Any]:
        with self.gateway as client:
            return {entry["model"]: entry for entry in client.get("/models/info").json()["models"]}

    def ledger(self, *arguments: str) -> list[dict[str, Any]]:
        lines = self.cli("ledger", "--json", *arguments).stdout.splitlines()
        return [json.loads(line) for line in lines]

    def processes(self) -> list[Process]:
        """Every process of this stack: by its environment, or by the session of its supervisor."""
        self.sessions |= {session for session in [recorded_session(self.settings())] if session}
        found = {
            process.pid: process for session in self.sessions for process in find_stack_processes(self.home, session)
        }
        return list(found.values())


@contextmanager
def running_stack(home: Path, **settings: str) -> Iterator[Stack]:
    """A fresh stack in a folder of its own, with more of its environment; it is down at the end."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SLIPWAY_", "AIRFLOW"))}
    ports = free_ports(len(PORTS) + SLOTS)
    env |= {f"SLIPWAY_{name.upper()}_PORT": str(port) for name, port in zip(PORTS, ports, strict=False)}
    env |= {
        "SLIPWAY_HOME": str(home),
        "SLIPWAY_SLOT_PORT_BASE": str(ports[len(PORTS)]),
        "PYTHONPATH": str(PROJECT_DIR / "include"),
        "SLIPWAY_SPOOL_SEGMENT_MAX_AGE_SECONDS": "1",
        **settings,
    }
    running = Stack(home, env)
    if home.exists():
        running.cli("down", check=False)
        shutil.rmtree(home)
    try:
        running.cli("up")
        assert len(running.processes()) > 10
        yield running
    finally:
        running.cli("down")
    assert running.processes() == []


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    with running_stack(HOME) as running:
        yield running
