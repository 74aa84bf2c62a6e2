"""The servers that are compared: how each is started, asked, measured and stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Running", "Server", "free_port", "pss_mb"]

_START_SECONDS = 120
_STOP_SECONDS = 20
_claimed: set[int] = set()


@dataclass(frozen=True)
class Server:
    """One contestant.

    Attributes:
        command: `{port}` stands for the port.
        single, batch: paths for one row and for many; `batch` is None where there is none.
        protocol: how rows are written, see `rows.py`.
    """

    name: str
    command: Sequence[str]
    single: str
    batch: str | None
    protocol: str
    cwd: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def free_port(first: int = 24000, last: int = 24499) -> int:
    """A port of the benchmark's range that nobody listens on and that this run has not used."""
    for port in range(first, last):
        if port in _claimed:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            _claimed.add(port)
            return port
    raise RuntimeError(f"no free port between {first} and {last}")


class Running:
    """A started server. While others are measured it is frozen, so that it takes nothing from them."""

    def __init__(self, server: Server, cpus: frozenset[int], logs: Path, body: str, port: int | None = None) -> None:
        """Start it and wait for its first right answer; `ready_seconds` is how long that took."""
        self.server, self.port = server, port or free_port()
        logs.mkdir(parents=True, exist_ok=True)
        self.log = logs / f"{server.name}.log"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLIPWAY_", "PYTHON"))}
        command = [part.replace("{port}", str(self.port)) for part in server.command]
        given = {key: value.replace("{port}", str(self.port)) for key, value in server.environment.items()}
        begun = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                cwd=server.cwd,
                env={**environment, **given},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, cpus),
            )
        try:
            self._await(body, begun + _START_SECONDS)
        except BaseException:
            self.stop()
            raise
        self.ready_seconds = time.perf_counter() - begun

    def _await(self, body: str, deadline: float) -> None:
        error = "nothing was tried"
        while time.perf_counter() < deadline:
            if self.process.poll() is not None:
                error = f"it ended with {self.process.returncode}"
                break
            try:
                self.ask(self.server.single, body)
                return
            except (urllib.error.URLError, OSError) as problem:
                error = str(problem)
            time.sleep(0.02)
        raise RuntimeError(f"{self.server.name} does not answer: {error}; see {self.log}")

    def ask(self, path: str, body: str) -> bytes:
        """One request; raises unless the answer is a 200."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body.encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            content: bytes = response.read()
        return content

    def pids(self) -> list[int]:
        """The process and all its descendants."""
        return list(_descendants(self.process.pid))

    def pin(self, cpus: frozenset[int]) -> None:
        """Move all its threads to other cores."""
        for pid in self.pids():
            with contextlib.suppress(OSError):
                for thread in os.listdir(f"/proc/{pid}/task"):
                    os.sched_setaffinity(int(thread), cpus)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def thawed(self) -> Iterator[Running]:
        """Awake for a measurement."""
        self._signal(signal.SIGCONT)
        try:
            yield self
        finally:
            self.freeze()

    def stop(self) -> None:
        """End it and everything it started."""
        family = self.pids()
        self._signal(signal.SIGCONT)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_SECONDS)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == self.process.pid:  # a number may belong to somebody else by now
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(5)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _descendants(pid: int) -> Iterator[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    yield pid
    for task in tasks:
        with contextlib.suppress(OSError):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                yield from _descendants(int(child))


def pss_mb(pids: Sequence[int]) -> float:
    """Proportional set size: memory that processes share counts once, divided among them."""
    kilobytes = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024
