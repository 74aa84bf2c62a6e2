"""Real Prometheus and Alertmanager for tests, whose rules have been made to hurry, and what receives their alerts."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from loop.conftest import free_ports, wait_until
from slipway.settings import PROJECT_DIR, Settings
from slipway.stack import alertmanager

RULES = PROJECT_DIR / "monitoring" / "prometheus" / "rules"
_NAMES = {
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "alertmanager": ("alertmanager", "prometheus-alertmanager"),
    "amtool": ("amtool",),
    "node-exporter": ("node_exporter", "prometheus-node-exporter"),
    "postgres-exporter": ("postgres_exporter", "prometheus-postgres-exporter"),
}


def find(tool: str) -> str | None:
    """The program's path, under upstream's or Debian's name."""
    return next((path for path in map(shutil.which, _NAMES[tool]) if path), None)


def require(tool: str) -> str:
    """The program's path; the test fails without it. `make test` asks for none of them."""
    path = find(tool)
    if path is None:
        pytest.fail(
            f"no {tool} on this machine; on Debian: apt-get install prometheus prometheus-alertmanager"
            " prometheus-node-exporter prometheus-postgres-exporter"
        )
    return path


# --- hurry ------------------------------------------------------------------------------------------------------------

FASTER = 30
LEAST_WINDOW_SECONDS = 8  # several scrapes, at one a second
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def _hurried(duration: str, least: float) -> str:
    seconds = int(duration[:-1]) * _UNITS[duration[-1]]
    return f"{max(least, round(seconds / FASTER)):g}s"


def hurry(text: str) -> str:
    """Rules or routes in which every duration is a thirtieth: windows, offsets, `for`, waits and intervals.

    A window keeps at least 8 seconds, and anything else a second. Thresholds stay as they are, so an alert fires for
    the reason that it fires for at its own pace.
    """
    text = re.sub(r"\[(\d+[smhdw])\]", lambda m: f"[{_hurried(m[1], LEAST_WINDOW_SECONDS)}]", text)
    text = re.sub(r"offset (\d+[smhdw])", lambda m: f"offset {_hurried(m[1], LEAST_WINDOW_SECONDS)}", text)
    return re.sub(r"\b(for|\w+_wait|\w+_interval): (\d+[smhdw])\b", lambda m: f"{m[1]}: {_hurried(m[2], 1)}", text)


# --- servers ----------------------------------------------------------------------------------------------------------


class Inbox:
    """What a webhook got: one alert of each notification, newest last."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.url = ""

    def named(self, alertname: str, status: str = "firing") -> list[dict[str, Any]]:
        return [one for one in self.alerts if one["labels"]["alertname"] == alertname and one["status"] == status]


@contextmanager
def webhook() -> Iterator[Inbox]:
    """A receiver of Alertmanager's notifications by HTTP."""
    inbox = Inbox()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            inbox.alerts += body["alerts"]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing: the tests' output is for what failed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    inbox.url = f"http://127.0.0.1:{server.server_address[1]}/alerts"
    with _serving(server):
        yield inbox


@contextmanager
def mailbox() -> Iterator[tuple[str, list[str]]]:
    """A mail server that takes everything: its address, and the mails that it got."""
    mails: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._say("220 here")
            while line := self.rfile.readline().decode().strip():
                command = line.split()[0].upper()
                if command == "DATA":
                    self._say("354 go on")
                    mails.append("".join(iter(lambda: self.rfile.readline().decode(), ".\r\n")))
                self._say("221 bye" if command == "QUIT" else "250 fine")
                if command == "QUIT":
                    return

        def _say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with _serving(server):
        yield f"127.0.0.1:{server.server_address[1]}", mails


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def running(command: Sequence[str], folder: Path, name: str, ready: str, env: Mapping[str, str] | None = None) -> Any:
    """A program until the block ends, once it answers at `ready`; its log is `<folder>/<name>.log`."""
    log = folder / f"{name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            list(command), stdout=output, stderr=subprocess.STDOUT, cwd=folder, env={**os.environ, **(env or {})}
        )
    try:

        def answers() -> bool:
            if process.poll() is not None:
                pytest.fail(f"{name} ended with code {process.returncode}: {log.read_text()[-800:]}")
            return httpx.get(ready).is_success

        wait_until(answers, 20, f"{name} to answer")
        yield process
    finally:
        process.terminate()
        process.wait(10)


class Monitor:
    """A running Prometheus."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def _get(self, path: str, **parameters: str) -> Any:
        answer = httpx.get(f"{self.uri}/api/v1/{path}", params=parameters, timeout=30)
        body = answer.json()
        if body["status"] != "success":
            raise AssertionError(f"{parameters}: {body['error']}")
        return body["data"]

    def values(self, expr: str, start: float, end: float, step_seconds: float = 5) -> list[float]:
        """Every number that the expression had between two Unix times, of all of its series."""
        found = self._get("query_range", query=expr, start=str(start), end=str(end), step=str(step_seconds))["result"]
        numbers = [float(value) for series in found for _, value in series["values"]]
        return [value for value in numbers if not math.isnan(value)]

    def firing(self, alertname: str | None = None) -> list[dict[str, Any]]:
        """The alerts that fire now, or those of one name."""
        found = [alert for alert in self._get("alerts")["alerts"] if alert["state"] == "firing"]
        return [alert for alert in found if alertname in (None, alert["labels"]["alertname"])]


@contextmanager
def hurried_alertmanager(folder: Path, settings: Settings) -> Iterator[str]:
    """The installation's Alertmanager with its waits shortened; its address."""
    program = require("alertmanager")
    (port,) = free_ports(1)
    alertmanager.write_config(settings)
    written = (settings.home / "alertmanager" / "alertmanager.yml").read_text()
    (folder / "alertmanager.yml").write_text(hurry(written))
    command = [program, "--config.file=alertmanager.yml", f"--storage.path={folder / 'alertmanager'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with running(command, folder, "alertmanager", f"http://127.0.0.1:{port}/-/ready"):
        yield f"127.0.0.1:{port}"


@contextmanager
def hurried_prometheus(
    folder: Path, services: Mapping[str, str], rules: Sequence[str] = ("*.yml",)
) -> Iterator[Monitor]:
    """The project's Prometheus configuration and rules, hurried: scrapes and evaluates every second.

    Args:
        services: job → address, Alertmanager included.
        rules: patterns of the rule files.
    """
    program = require("prometheus")
    (port,) = free_ports(1)
    text = (PROJECT_DIR / "monitoring" / "prometheus" / "prometheus.yml").read_text()
    config = yaml.safe_load(text)
    config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    groups = [
        {
            "targets": [at],
            "labels": {"job": job} | ({"__metrics_path__": "/stats/prometheus"} if job == "envoy" else {}),
        }
        for job, at in {**services, "prometheus": f"127.0.0.1:{port}"}.items()
    ]
    (folder / "services.json").write_text(json.dumps(groups))
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "rules").mkdir()
    for path in sorted({path for pattern in rules for path in RULES.glob(pattern)}):
        (folder / "rules" / path.name).write_text(hurry(path.read_text()))
    command = [program, "--config.file=prometheus.yml", f"--storage.tsdb.path={folder / 'data'}"]
    # The addresses become known some seconds after the first alert, which would be sent again in a minute only.
    command += [f"--web.listen-address=127.0.0.1:{port}", "--rules.alert.resend-delay=2s"]
    with running(command, folder, "prometheus", f"http://127.0.0.1:{port}/-/ready"):
        yield Monitor(f"http://127.0.0.1:{port}")
