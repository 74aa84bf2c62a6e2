"""Questions to Linux about processes and ports, read from /proc.

Processes of the stack are told from all others by `SLIPWAY_STACK=<home>` in their environment. Some
overwrite that memory with a title of their own (Postgres, Airflow's tasks), so membership of the
supervisor's session together with a working folder below the home counts as well.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "STACK_VARIABLE",
    "Process",
    "ancestors",
    "end_processes",
    "find_stack_processes",
    "listener",
    "orphans",
    "port_is_free",
    "read_process",
    "wait_until",
]

STACK_VARIABLE = "SLIPWAY_STACK"


@dataclass(frozen=True)
class Process:
    """One process; `started` (clock ticks since boot) tells it from a later one with the same id."""

    pid: int
    parent: int
    session: int
    started: int
    command: str

    def exists(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        now = read_process(self.pid)
        return now is not None and now.started == self.started


def read_process(pid: int) -> Process | None:
    """What runs under an id; None when nothing does, or only a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return None
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    command = raw.replace(b"\0", b" ").decode(errors="replace").strip() or f"[{name}]"
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), command)


def _all() -> Iterator[Process]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (process := read_process(int(entry))) is not None:
            yield process


def ancestors(pid: int) -> set[int]:
    """The process itself and its parents up to the first one."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        process = read_process(pid)
        pid = process.parent if process else 0
    return found


def _marked(pid: int, home: Path) -> bool:
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{STACK_VARIABLE}={home}".encode() in variables


def _works_below(pid: int, home: Path) -> bool:
    try:
        folder = Path(os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)"))
    except OSError:
        return False
    return folder == home or home in folder.parents


def find_stack_processes(home: Path, session: int | None = None) -> list[Process]:
    """Every process of the installation whose home is given, except the caller and its parents.

    Args:
        home: the installation's folder.
        session: the session id of its supervisor, when known.
    """
    spared = ancestors(os.getpid())
    return [
        process
        for process in _all()
        if process.pid not in spared
        and (
            _marked(process.pid, home)
            or (session is not None and process.session == session and _works_below(process.pid, home))
        )
    ]


def orphans(supervisor: int) -> list[Process]:
    """What a supervisor's programs left behind: the processes of its session that do not descend from it.

    Args:
        supervisor: the process id of a supervisor that leads its session. Of one that has ended, or that shares the
            session of whoever started it, nothing is known: then there are none.
    """
    found = [process for process in _all() if process.session == supervisor]
    left = [process for process in found if supervisor not in ancestors(process.pid) and process.exists()]
    # Asked last: while it ended, everything of its session began to look like an orphan.
    return left if read_process(supervisor) is not None else []


def _living(processes: Iterable[Process]) -> list[Process]:
    return [process for process in processes if process.exists()]


def end_processes(processes: Iterable[Process], grace_seconds: float = 5.0) -> None:
    """Asks processes to end, and ends by force those that are left after the grace period."""
    chosen = list(processes)
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for process in _living(chosen):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process.pid, sent)
        if wait_until(lambda: not _living(chosen), grace_seconds):
            return


def wait_until(condition: Callable[[], bool], timeout_seconds: float, interval_seconds: float = 0.05) -> bool:
    """Polls a condition; whether it became true in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval_seconds)
    return True


def port_is_free(host: str, port: int, *, udp: bool = False) -> bool:
    """Whether a server could bind to a port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as probe:
        if not udp:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def listener(port: int, *, udp: bool = False) -> Process | None:
    """The process that listens on a port, as far as this user may see it."""
    inodes = set(_socket_inodes(port, udp))
    for process in _all() if inodes else ():
        with contextlib.suppress(OSError):
            for descriptor in os.scandir(f"/proc/{process.pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor.path) in inodes:
                        return process
    return None


def _socket_inodes(port: int, udp: bool) -> Iterator[str]:
    listening = "07" if udp else "0A"
    for table in ("udp", "udp6") if udp else ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == listening and int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"
