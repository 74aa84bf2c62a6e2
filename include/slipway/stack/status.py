"""What runs: the table of `slipway status`, and where things are."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from slipway.errors import NotFoundError
from slipway.settings import Settings, env_file_path
from slipway.stack import probes
from slipway.stack.airflow import LOGIN
from slipway.stack.monitoring import alerting_line, missing, missing_line
from slipway.stack.processes import read_process
from slipway.stack.programs import Program, programs
from slipway.stack.supervisor import SLOT_PREFIX, State, Supervisor

__all__ = ["Part", "addresses", "slot_is_ready", "stack_parts"]


@dataclass(frozen=True)
class Part:
    """One line of the table. `state` is ready, starting, not answering, failing or stopped."""

    name: str
    state: str
    pid: int | None
    uptime_seconds: float | None
    address: str

    @property
    def ok(self) -> bool:
        return self.state == "ready"


def addresses(settings: Settings) -> list[tuple[str, str]]:
    """What to open in a browser, by name."""
    login = f"user {LOGIN}, password: SLIPWAY_AIRFLOW_ADMIN_PASSWORD in {env_file_path()}"
    return [
        ("gateway", f"{settings.gateway_uri}/docs"),
        ("Airflow", f"{settings.airflow_uri} ({login})"),
        ("MLflow", settings.mlflow_uri),
        *_monitoring(settings),
    ]


def _monitoring(settings: Settings) -> list[tuple[str, str]]:
    lacking = missing()
    ports = {"prometheus": settings.prometheus_port, "alertmanager": settings.alertmanager_port}
    found = [(tool, port) for tool, port in ports.items() if tool not in lacking]
    lines = [(tool.capitalize(), f"http://{settings.host}:{port}") for tool, port in found]
    return [*lines, ("monitoring", missing_line() if lacking else alerting_line(settings))]


def stack_parts(settings: Settings, name: str | None = None) -> list[Part]:
    """Every part of the stack with its state; each running one is asked whether it answers.

    Args:
        name: only this part.

    Raises:
        NotFoundError: no part of that name.
    """
    supervisor = Supervisor(settings)
    states = {state.name: state for state in supervisor.states()} if supervisor.is_running() else {}
    wanted = {program.name: program for program in programs(settings)}
    names = [*wanted, *(part for part in states if part not in wanted and states[part].group.startswith(SLOT_PREFIX))]
    if name is not None:
        if name not in names:
            raise NotFoundError(f"no part named {name!r}; parts: {', '.join(names)}")
        names = [name]
    with ThreadPoolExecutor(max_workers=16) as pool:
        return list(pool.map(lambda part: _part(part, wanted.get(part), states.get(part), settings), names))


def _part(name: str, program: Program | None, state: State | None, settings: Settings) -> Part:
    address = program.address if program else ""
    if state is None or state.state in ("STOPPED", "EXITED", "STOPPING", "UNKNOWN"):
        return Part(name, "stopped", None, None, address)
    if state.state in ("BACKOFF", "FATAL"):
        return Part(name, "failing", None, None, address)
    if program is None:
        address = _slot_uri(state, settings)
        ready = slot_is_ready(state, settings)
    else:
        ready = program.ready(state.started)
    uptime = max(0.0, time.time() - state.started)
    # Nothing that runs takes longer than this to answer for the first time.
    silent = "starting" if uptime < 60 else "not answering"
    return Part(name, "ready" if ready else silent, state.pid, uptime, address)


def slot_is_ready(state: State, settings: Settings) -> bool:
    """Whether a bento answers its golden rows."""
    address = _slot_uri(state, settings)
    return bool(address) and probes.answers(f"{address}/readyz")


def _slot_uri(state: State, settings: Settings) -> str:
    """The address of a bento, from its own command line."""
    process = read_process(state.pid)
    port = re.search(r"--port[= ](\d+)", process.command) if process else None
    return f"http://{settings.host}:{port.group(1)}" if port else ""
