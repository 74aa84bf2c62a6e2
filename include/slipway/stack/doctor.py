"""`slipway doctor`: what is wrong with this machine or this installation, each with the next step."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from slipway.errors import SlipwayError
from slipway.settings import Settings, env_file_path
from slipway.stack.alertmanager import receivers
from slipway.stack.monitoring import alerting_line, missing, missing_line
from slipway.stack.processes import ancestors, find_stack_processes, listener, port_is_free
from slipway.stack.programs import programs
from slipway.stack.secrets import missing_secrets
from slipway.stack.status import stack_parts
from slipway.stack.stop import recorded_session
from slipway.stack.supervisor import Supervisor

__all__ = ["Finding", "examine", "lock_differences", "locked_versions"]

Level = Literal["ok", "note", "problem"]

LEAST_PYTHON = (3, 11)
LEAST_DISK_BYTES = 2 * 1024**3
LEAST_MEMORY_BYTES = 3 * 1024**3


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    text: str


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, the cheap and basic ones first."""
    yield _python()
    if settings.runtime == "docker":
        # Environments and programs are the images', and of files, memory and processes a container sees its own only.
        yield _disk(settings)
        yield Finding("note", "containers", "`slipway --stack compose status` shows the health of each")
        yield from _truth(settings)
        return
    yield from _environments(settings)
    yield from _files(settings)
    yield _disk(settings)
    yield _memory(settings)
    yield from _tools(settings)
    yield from _running(settings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= LEAST_PYTHON:
        return Finding("ok", "python", f"{version} at {sys.executable}")
    return Finding("problem", "python", f"{version} is too old; install Python 3.11 or newer, then `make clean up`")


_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$")


def locked_versions(lock: Path) -> dict[str, str]:
    """Normalised name → version of a lock file, without lines that are for other platforms."""
    from packaging.markers import Marker
    from packaging.utils import canonicalize_name

    found = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if (match := _PIN.match(line)) and (match[3] is None or Marker(match[3]).evaluate()):
            found[str(canonicalize_name(match[1]))] = match[2]
    return found


def _installed(python: Path) -> dict[str, str]:
    from packaging.utils import canonicalize_name

    found = {}
    for folder in python.parent.parent.glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").partition("-")
        found[str(canonicalize_name(name))] = version
    return found


def lock_differences(python: Path, lock: Path) -> list[str]:
    """What an environment has otherwise than its lock says; empty when it fits."""
    have = _installed(python)
    return [
        f"{name} {have.get(name, 'missing')} instead of {version}"
        for name, version in locked_versions(lock).items()
        if have.get(name) != version
    ]


def _environments(settings: Settings) -> Iterator[Finding]:
    project = settings.project_dir
    pairs = {
        "pipeline environment": (Path(sys.executable), project / "requirements.lock"),
        "serving environment": (settings.serving_python, project / "bentos" / "requirements.lock"),
    }
    for subject, (python, lock) in pairs.items():
        if not python.exists():
            yield Finding("problem", subject, f"{python} does not exist; run `make`")
        elif not lock.exists():
            yield Finding("note", subject, f"{lock} does not exist; nothing to compare with")
        elif differences := lock_differences(python, lock):
            more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
            yield Finding("problem", subject, f"{'; '.join(differences[:3])}{more}; run `make`")
        else:
            yield Finding("ok", subject, f"as locked in {lock.relative_to(project)}")


def _files(settings: Settings) -> Iterator[Finding]:
    secrets = env_file_path()
    if not secrets.exists():
        yield Finding("note", "secrets", f"{secrets} does not exist yet; `slipway up` makes it")
    else:
        mode = secrets.stat().st_mode & 0o777
        if mode & 0o077:
            yield Finding("problem", "secrets", f"others can read {secrets} (mode {mode:o}); run `chmod 600 {secrets}`")
        elif missing := missing_secrets(secrets):
            yield Finding("note", "secrets", f"{secrets} lacks {', '.join(missing)}; `slipway up` adds them")
        else:
            yield Finding("ok", "secrets", f"{secrets}, readable by its owner alone")
    if not settings.home.exists():
        yield Finding("note", "home", f"{settings.home} does not exist yet; `slipway up` makes it")
    elif not os.access(settings.home, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("problem", "home", f"no write access to {settings.home}; set SLIPWAY_HOME or change its owner")
    elif settings.home.stat().st_uid != os.geteuid():
        yield Finding("note", "home", f"{settings.home} belongs to another user; run slipway as that user")
    else:
        yield Finding("ok", "home", str(settings.home))


def _disk(settings: Settings) -> Finding:
    existing = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    level: Level = "ok" if free >= LEAST_DISK_BYTES else "problem"
    advice = "" if level == "ok" else "; the prediction log stops when the disk is full, so free some space"
    return Finding(level, "disk", f"{free / 1024**3:.1f} GiB free at {existing}{advice}")


def _memory(settings: Settings) -> Finding:
    available = _available_memory()
    level: Level = "ok" if available >= LEAST_MEMORY_BYTES or _supervisor_runs(settings) else "problem"
    advice = "" if level == "ok" else f"; the stack needs about {LEAST_MEMORY_BYTES // 1024**3} GiB"
    return Finding(level, "memory", f"{available / 1024**3:.1f} GiB available{advice}")


def _available_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _tools(settings: Settings) -> Iterator[Finding]:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        text = "setpriv is missing and Postgres cannot run as root; install util-linux or use another user"
        yield Finding("problem", "setpriv", text)
    if lacking := missing_line():
        yield Finding("note", "monitoring", f"{lacking}; everything else works without")
    else:
        yield Finding("ok", "monitoring", "Prometheus and Alertmanager are on this machine")
    if "alertmanager" not in missing():
        yield Finding("ok" if receivers(settings) else "note", "alerts", alerting_line(settings))


def _supervisor_runs(settings: Settings) -> bool:
    try:
        return settings.supervisor_password is not None and Supervisor(settings).is_running()
    except SlipwayError:
        return False


def _running(settings: Settings) -> Iterator[Finding]:
    if _supervisor_runs(settings):
        for part in stack_parts(settings):
            yield Finding("ok" if part.ok else "problem", part.name, _part_text(part.name, part.state, part.ok))
        yield from _orphans(settings)
        yield from _truth(settings)
        return
    yield Finding("note", "stack", "not running; start it with `slipway up`")
    if left := find_stack_processes(settings.home, recorded_session(settings)):
        yield Finding("problem", "stack", f"{len(left)} processes are left of a former run; run `slipway down`")
    else:
        yield from _ports(settings)


def _orphans(settings: Settings) -> Iterator[Finding]:
    """Servers of bentos that Supervisor does not know: they hold a port, or answer for a version that is gone."""
    supervisor = Supervisor(settings).session()
    left = [
        process
        for process in find_stack_processes(settings.home, recorded_session(settings))
        if "bentoml" in process.command and "serve" in process.command and supervisor not in ancestors(process.pid)
    ]
    for process in left:
        yield Finding("problem", f"process {process.pid}", f"an orphan: {process.command[:80]}; end it with `kill`")


def _truth(settings: Settings) -> Iterator[Finding]:
    """Whether gateway, slots, alias, rollouts and ledger agree with the tables."""
    from slipway.wiring import Wiring

    try:
        found = Wiring(settings).releases.survey()
    except SlipwayError as error:
        yield Finding("problem", "releases", str(error))
        return
    for one in found:
        subject = " ".join(part for part in (one.kind, one.model) if part)
        yield Finding("problem", subject, f"{one.detail}; the keeper repairs what it can: `slipway logs keeper`")
    if not found:
        yield Finding("ok", "releases", "gateway, slots, alias, rollouts and ledger agree")


def _part_text(name: str, state: str, ok: bool) -> str:
    return state if ok else f"{state}; see `slipway logs {name}`"


def _ports(settings: Settings) -> Iterator[Finding]:
    wanted: list[tuple[str, int, bool]] = [("supervisor", settings.supervisor_port, False)]
    if not missing_secrets(env_file_path()):
        for program in programs(settings):
            wanted += [(program.name, port, False) for port in program.ports]
            wanted += [(program.name, port, True) for port in program.udp_ports]
    taken = [item for item in wanted if not port_is_free(settings.host, item[1], udp=item[2])]
    for name, port, udp in taken:
        owner = listener(port, udp=udp)
        who = f"process {owner.pid} ({owner.command[:60]})" if owner else "a process of another user"
        yield Finding("problem", f"port {port}", f"wanted by {name}, held by {who}; stop it or set another port")
    if not taken:
        yield Finding("ok", "ports", f"free: {_listed(port for _, port, _ in wanted)}")


def _listed(ports: Iterable[int]) -> str:
    return ", ".join(map(str, ports))
