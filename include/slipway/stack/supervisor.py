"""Supervisor's configuration file and the client of its XML-RPC interface."""

from __future__ import annotations

import http.client
import os
import re
import shlex
import sys
import xmlrpc.client
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack.processes import wait_until
from slipway.stack.programs import Program

__all__ = ["SLOT_PREFIX", "State", "Supervisor", "config_file", "pid_file", "render", "slots_dir", "write_config"]

REMOVE_SECONDS = 40.0
SLOT_PREFIX = "slot-"  # programs of the bentos; they come and go at run time and are not ours to touch


def supervisor_dir(settings: Settings) -> Path:
    return settings.home / "supervisor"


def config_file(settings: Settings) -> Path:
    return supervisor_dir(settings) / "supervisord.conf"


def slots_dir(settings: Settings) -> Path:
    """Where the runtime adapter writes one configuration file per slot."""
    return supervisor_dir(settings) / "slots"


def pid_file(settings: Settings) -> Path:
    return supervisor_dir(settings) / "supervisord.pid"


def _literal(value: str) -> str:
    return value.replace("%", "%%")


def environment_line(variables: Mapping[str, str]) -> str:
    """Variables in Supervisor's notation, which knows quotes but no escapes.

    Raises:
        StackError: a value cannot be written in it; the message names the variable.
    """
    parts = []
    for name, value in sorted(variables.items()):
        quote = '"' if '"' not in value else "'"
        if quote in value or value.startswith(("'", '"')) or value.endswith(("'", '"')):
            raise StackError(f"{name}: Supervisor cannot pass on a value with such quotes; choose another value")
        # An inline comment starts at a blank before ; or #, also between quotes.
        if re.search(r"[\n\r]|\s[;#]", value):
            raise StackError(f"{name}: Supervisor cannot pass on a line break or a comment sign; choose another value")
        parts.append(f"{name}={quote}{_literal(value)}{quote}")
    return ",".join(parts)


def _section(program: Program, settings: Settings) -> str:
    lines = {
        "command": _literal(shlex.join(program.command)),
        "directory": _literal(str(settings.home)),
        "environment": environment_line(program.environment),
        "priority": str(program.priority),
        "autostart": "false",  # `slipway up` starts each when what it needs is there
        "autorestart": "true",
        "startsecs": "1",
        "startretries": "20",
        "stopsignal": program.stop_signal,
        "stopwaitsecs": str(program.stop_seconds),
        # Postgres ends its own children in order; a signal to each of them would look like a crash.
        "stopasgroup": "false" if program.name == "postgres" else "true",
        "killasgroup": "true",
        "stdout_logfile": _literal(str(settings.log_dir / f"{program.name}.log")),
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": "3",
        "redirect_stderr": "true",
    }
    return "\n".join([f"[program:{program.name}]", *(f"{key} = {value}" for key, value in lines.items() if value)])


def render(programs: Iterable[Program], settings: Settings) -> str:
    """The whole configuration file."""
    folder = supervisor_dir(settings)
    password = _literal(settings.secret("supervisor_password"))
    head = f"""\
; Written by `slipway up`; changes here are lost.
[supervisord]
logfile = {_literal(str(settings.log_dir / "supervisord.log"))}
logfile_maxbytes = 10MB
logfile_backups = 2
loglevel = info
pidfile = {_literal(str(pid_file(settings)))}
childlogdir = {_literal(str(settings.log_dir))}
directory = {_literal(str(settings.home))}
identifier = slipway
umask = 077
nocleanup = true

[inet_http_server]
port = {settings.host}:{settings.supervisor_port}
username = slipway
password = {password}

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface

[eventlistener:reaper]
command = {_literal(shlex.join([sys.executable, "-m", "slipway.stack.reaper"]))}
events = PROCESS_STATE_EXITED,PROCESS_STATE_STOPPED
buffer_size = 1000
priority = 1
startretries = 1000
stdout_logfile = NONE
stderr_logfile = {_literal(str(settings.log_dir / "reaper.log"))}
stderr_logfile_maxbytes = 1MB
stderr_logfile_backups = 1

[include]
files = {_literal(str(folder / "slots"))}/*.conf
"""
    return "\n".join([head, *(_section(program, settings) + "\n" for program in programs)])


def write_config(programs: Iterable[Program], settings: Settings) -> bool:
    """Writes the file, readable by its owner alone, for it holds secrets; whether its content changed."""
    target = config_file(settings)
    slots_dir(settings).mkdir(parents=True, exist_ok=True)
    text = render(programs, settings)
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return False
    temporary = target.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(target)
    return True


@dataclass(frozen=True)
class State:
    """What Supervisor says about one process; `started` is Unix time, 0 when it never ran."""

    group: str
    name: str
    state: str
    pid: int
    started: float
    stopped: float
    error: str
    log: str

    @property
    def full_name(self) -> str:
        return f"{self.group}:{self.name}"

    @property
    def up(self) -> bool:
        return self.state in ("STARTING", "RUNNING")


class _Transport(xmlrpc.client.Transport):
    """HTTP with a deadline and without proxies; the password stays out of the URL and thus out of messages."""

    def __init__(self, user: str, password: str, timeout_seconds: float) -> None:
        token = b64encode(f"{user}:{password}".encode()).decode()
        super().__init__(headers=[("Authorization", f"Basic {token}")])
        self._timeout_seconds = timeout_seconds

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(str(host), timeout=self._timeout_seconds)


class Supervisor:
    """Supervisor's interface, as far as the stack needs it."""

    def __init__(self, settings: Settings, timeout_seconds: float = 10.0) -> None:
        self._address = f"{settings.host}:{settings.supervisor_port}"
        password = settings.secret("supervisor_password")
        self._credentials = ("slipway", password, timeout_seconds)

    def _proxy(self) -> Any:
        # One per call: xmlrpc's connection is not made for use from several threads.
        return xmlrpc.client.ServerProxy(f"http://{self._address}/RPC2", transport=_Transport(*self._credentials))

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._proxy(), method)(*arguments)
        except xmlrpc.client.ProtocolError as error:
            hint = "another program or another stack answers there" if error.errcode == 401 else error.errmsg
            raise StackError(f"the supervisor at {self._address} refuses: {hint}; see `slipway doctor`") from error
        except (OSError, http.client.HTTPException) as error:
            raise StackError(f"no supervisor answers at {self._address}; start the stack with `slipway up`") from error

    def is_running(self) -> bool:
        """Whether our supervisor answers and takes orders.

        Raises:
            StackError: something else answers at its address.
        """
        try:
            state = self._proxy().supervisor.getState()
        except (OSError, http.client.HTTPException):
            return False
        except xmlrpc.client.ProtocolError as error:
            raise StackError(
                f"port {self._address.rpartition(':')[2]} is held by a supervisor that refuses this stack's password; "
                "stop it, or set SLIPWAY_SUPERVISOR_PORT"
            ) from error
        except Exception:  # what answers is no supervisor at all; the check of the ports says who it is
            return False
        return isinstance(state, dict) and state.get("statename") == "RUNNING"

    def session(self) -> int:
        """The process id of supervisord, which is its session's id as well."""
        return int(self._call("supervisor.getPID"))

    def states(self) -> list[State]:
        """Every process that Supervisor knows."""
        return [
            State(
                group=item["group"],
                name=item["name"],
                state=item["statename"],
                pid=item["pid"],
                started=float(item["start"]),
                stopped=float(item["stop"]),
                error=item["spawnerr"],
                log=item["stdout_logfile"],
            )
            for item in self._call("supervisor.getAllProcessInfo")
        ]

    def start(self, name: str) -> None:
        """Starts a process without waiting for it; one that runs already stays as it is."""
        self._tolerant("supervisor.startProcess", name, "ALREADY_STARTED")

    def stop(self, name: str) -> None:
        """Sends a process its stop signal without waiting for its end."""
        self._tolerant("supervisor.stopProcess", name, "NOT_RUNNING")

    def _tolerant(self, method: str, name: str, expected: str) -> None:
        try:
            self._call(method, name, False)
        except xmlrpc.client.Fault as fault:
            if expected not in str(fault.faultString):
                raise StackError(f"{name}: Supervisor says {fault.faultString}; see `slipway logs {name}`") from fault

    def reload(self) -> None:
        """Takes over a changed configuration file; only programs whose section changed are restarted."""
        added, changed, removed = (
            [group for group in groups if not group.startswith(SLOT_PREFIX)]
            for groups in self._call("supervisor.reloadConfig")[0]
        )
        for group in (*removed, *changed):
            self._call("supervisor.stopProcessGroup", group, False)
        for group in (*removed, *changed):
            if not wait_until(lambda name=group: self._removed(name), REMOVE_SECONDS):  # type: ignore[misc]
                raise StackError(f"{group} does not stop within {REMOVE_SECONDS:.0f} s; run `slipway down`")
        for group in (*added, *changed):
            self._call("supervisor.addProcessGroup", group)

    def _removed(self, group: str) -> bool:
        try:
            return bool(self._call("supervisor.removeProcessGroup", group))
        except xmlrpc.client.Fault as fault:
            if "STILL_RUNNING" in str(fault.faultString):
                return False
            raise

    def shutdown(self) -> None:
        """Stops everything, the supervisor last. Returns at once."""
        self._call("supervisor.shutdown")
