"""`slipway up`: brings every program of the stack to where it answers. Running it again changes nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack import airflow, alertmanager, postgres, prometheus
from slipway.stack.processes import end_processes, find_stack_processes, listener, port_is_free, wait_until
from slipway.stack.programs import Program, base_environment, programs
from slipway.stack.status import slot_is_ready
from slipway.stack.stop import recorded_session
from slipway.stack.supervisor import SLOT_PREFIX, State, Supervisor, config_file, write_config

__all__ = ["check_whole", "exclusive", "restore_marker", "start_stack"]

Report = Callable[[str], None]

DEADLINE_SECONDS = 240.0
SLOT_SECONDS = 60.0
POLL_SECONDS = 0.2
STILL_WAITING_SECONDS = 10.0


@contextlib.contextmanager
def exclusive(settings: Settings) -> Iterator[None]:
    """Keeps a second `up` or `down` of the same home out.

    Raises:
        StackError: one is at work.
    """
    folder = settings.home / "supervisor"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StackError(f"another `slipway up` or `down` is at work in {settings.home}; wait for it") from error
        yield


def restore_marker(settings: Settings) -> Path:
    """There while a restore is at work, and after one that was interrupted."""
    return settings.home / "restore.json"


def check_whole(settings: Settings) -> None:
    """Let nothing start on half of a backup.

    Raises:
        StackError: a restore was interrupted.
    """
    marker = restore_marker(settings)
    if marker.exists():
        path = Path(json.loads(marker.read_text(encoding="utf-8"))["backup"])
        contained = settings.runtime == "docker"
        command = f"make compose-restore FROM={path.name}" if contained else f"slipway restore {path}"
        raise StackError(f"a restore was interrupted; finish it with `{command}`")


def _make_folders(settings: Settings) -> None:
    new = not settings.home.exists()
    parts = ("logs/airflow", "supervisor/slots", "spool", "lake", "bentoml", "envoy", "mlflow/artifacts", "prometheus")
    try:
        for part in parts:
            (settings.home / part).mkdir(parents=True, exist_ok=True)
        if new:
            settings.home.chmod(0o700)
    except OSError as error:
        raise StackError(f"cannot write below {settings.home}: {error.strerror}; set SLIPWAY_HOME") from error


def _check_ports(wanted: Iterable[Program], settings: Settings) -> None:
    taken = []
    pairs = [("supervisor", settings.supervisor_port, False)]
    for program in wanted:
        pairs += [(program.name, port, False) for port in program.ports]
        pairs += [(program.name, port, True) for port in program.udp_ports]
    for name, port, udp in pairs:
        if not port_is_free(settings.host, port, udp=udp):
            owner = listener(port, udp=udp)
            who = f"process {owner.pid} ({owner.command[:80]})" if owner else "a process of another user"
            taken.append(f"port {port} for {name} is held by {who}")
    if taken:
        raise StackError("; ".join(taken) + "; stop it, or set another port (see .env.example)")


def _clean(settings: Settings, report: Report) -> None:
    """Ends what a supervisor that was killed has left behind: it would hold the ports."""
    left = find_stack_processes(settings.home, recorded_session(settings))
    if left:
        report(f"ending {len(left)} processes that a former run left behind")
        end_processes(left)


def _write_gateway_files(settings: Settings) -> None:
    from slipway.stack.gateway import write_bootstrap

    write_bootstrap(settings)


def _launch(settings: Settings) -> None:
    """Starts supervisord in a session of its own."""
    log = settings.log_dir / "supervisord.out"
    with log.open("w") as output:
        code = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(config_file(settings))],
            env=base_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.home,
            check=False,
        ).returncode
    supervisor = Supervisor(settings)
    if code != 0 or not wait_until(supervisor.is_running, 15):
        lines = log.read_text(errors="replace").strip().splitlines() or ["it gave no reason"]
        raise StackError(f"supervisord did not start: {lines[-1]}; see {settings.log_dir / 'supervisord.log'}")


def start_stack(settings: Settings, report: Report) -> None:
    """Starts what is not running and waits until all of it answers.

    Args:
        report: takes one line of progress at a time.

    Raises:
        StackError: a port is taken, a program fails or does not answer in time; the message names it.
    """
    if settings.executor != "local":
        raise StackError("SLIPWAY_EXECUTOR=celery is for the containers; without them, set it to local")
    began = time.monotonic()
    _make_folders(settings)
    with exclusive(settings):
        check_whole(settings)
        supervisor = Supervisor(settings)
        running = supervisor.is_running()
        _write_gateway_files(settings)
        prometheus.write_config(settings)
        alertmanager.write_config(settings)
        wanted = programs(settings)
        if not running:
            _clean(settings, report)
            _check_ports(wanted, settings)
            if postgres.initialise(settings):
                report("postgres: new cluster made")
        airflow.prepare(settings)
        changed = write_config(wanted, settings)
        if not running:
            _launch(settings)
        elif changed:
            supervisor.reload()
        _Start(settings, supervisor, wanted, report, began).run()
        _await_slots(settings, supervisor, report)


def _await_slots(settings: Settings, supervisor: Supervisor, report: Report) -> None:
    """Waits for the bentos, which the supervisor has started by itself from their own files."""
    waiting = {state.name for state in supervisor.states() if state.group.startswith(SLOT_PREFIX)}
    deadline = time.monotonic() + SLOT_SECONDS
    while waiting:
        states = [state for state in supervisor.states() if state.name in waiting]
        answering = {state.name for state in states if state.up and slot_is_ready(state, settings)}
        for name in sorted(answering):
            report(f"{name} ready")
        waiting = {state.name for state in states} - answering
        if waiting and time.monotonic() > deadline:
            name = min(waiting)
            raise StackError(f"{name} does not answer within {SLOT_SECONDS:.0f} s; see `slipway logs {name}`")
        time.sleep(POLL_SECONDS if waiting else 0)


class _Start:
    """One start: what is done, what runs, what is still awaited."""

    def __init__(
        self,
        settings: Settings,
        supervisor: Supervisor,
        wanted: tuple[Program, ...],
        report: Report,
        began: float,
    ) -> None:
        self._settings = settings
        self._supervisor = supervisor
        self._waiting = {program.name: program for program in wanted}
        self._report = report
        self._began = began
        self._pool = ThreadPoolExecutor(max_workers=16)
        self._steps: dict[str, Future[None]] = {}
        self._probes: dict[str, Future[bool]] = {}
        self._asked: set[str] = set()

    def run(self) -> None:
        deadline = self._began + DEADLINE_SECONDS
        next_note = time.monotonic() + STILL_WAITING_SECONDS
        try:
            while self._waiting:
                self._tick()
                now = time.monotonic()
                if now > deadline:
                    raise StackError(self._late())
                if now > next_note and self._waiting:
                    self._report(f"{self._clock()} waiting for {', '.join(self._waiting)}")
                    next_note = now + STILL_WAITING_SECONDS
                time.sleep(POLL_SECONDS)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:6.1f} s "

    def _late(self) -> str:
        names = ", ".join(self._waiting)
        return f"no answer within {DEADLINE_SECONDS:.0f} s from {names}; see `slipway logs {next(iter(self._waiting))}`"

    def _tick(self) -> None:
        states = {state.name: state for state in self._supervisor.states()}
        for program in list(self._waiting.values()):
            state = states.get(program.name)
            if state is None:
                raise StackError(f"the supervisor does not know {program.name}; run `slipway down`, then `slipway up`")
            if not state.up and program.name not in self._asked:
                if program.after is None or self._done(program.after):
                    self._supervisor.start(program.name)
                    self._asked.add(program.name)
            elif state.state == "FATAL" or (state.state == "STOPPED" and program.name in self._asked):
                raise StackError(self._failure(program, state))
            elif state.up:
                self._probe(program, state)

    def _probe(self, program: Program, state: State) -> None:
        future = self._probes.get(program.name)
        if future is None:
            self._probes[program.name] = self._pool.submit(program.ready, state.started)
        elif future.done():
            if future.result():
                del self._waiting[program.name]
                self._report(f"{self._clock()} {program.name} ready")
            else:
                del self._probes[program.name]

    def _done(self, step: str) -> bool:
        """Whether a step is done; the first question starts it, once what it needs is there."""
        if step == "postgres":
            return self._finished(step, self._make_databases) if "postgres" not in self._waiting else False
        if not self._done("postgres"):
            return False
        work = {"airflow-migrate": self._migrate_airflow, "slipway-migrate": self._migrate_slipway}[step]
        return self._finished(step, work)

    def _finished(self, step: str, work: Callable[[], None]) -> bool:
        future = self._steps.get(step)
        if future is None:
            future = self._steps[step] = self._pool.submit(work)
        if not future.done():
            return False
        future.result()
        return True

    def _make_databases(self) -> None:
        made = postgres.create_databases(self._settings)
        if made:
            self._report(f"{self._clock()} databases made: {', '.join(made)}")

    def _migrate_airflow(self) -> None:
        if airflow.needs_migration(self._settings):
            self._report(f"{self._clock()} migrating Airflow's database")
            airflow.migrate(self._settings, base_environment(self._settings))

    def _migrate_slipway(self) -> None:
        from slipway.adapters.postgres import migrate

        migrate(self._settings.database_uri("slipway"))

    def _failure(self, program: Program, state: State) -> str:
        reason = state.error or _last_line(Path(state.log)) or "it gave no reason"
        return f"{program.name} does not start: {reason}; see `slipway logs {program.name}`"


def _last_line(path: Path) -> str:
    with contextlib.suppress(OSError), path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else ""
    return ""
