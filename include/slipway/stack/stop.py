"""`slipway down`: stops everything in order and makes sure that nothing is left."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from slipway.errors import StackError
from slipway.settings import Settings
from slipway.stack.processes import Process, end_processes, find_stack_processes, read_process, wait_until
from slipway.stack.supervisor import Supervisor, pid_file

__all__ = ["recorded_session", "stop_stack"]

STOP_SECONDS = 45.0


def recorded_session(settings: Settings) -> int | None:
    """The session of the last supervisor, from its pid file, which a crash leaves behind.

    Numbers of processes are given out again: when a process of that number lives and is no supervisord,
    the record is stale.
    """
    with contextlib.suppress(OSError, ValueError):
        pid = int(pid_file(settings).read_text())
        process = read_process(pid)
        if process is None or "supervisord" in process.command:
            return pid
    return None


def stop_stack(settings: Settings, report: Callable[[str], None]) -> None:
    """Stops every program, the supervisor and whatever else belongs to this home.

    Raises:
        StackError: processes are left that cannot be ended; the message names them.
    """
    session = recorded_session(settings)
    supervisor = Supervisor(settings) if settings.supervisor_password else None
    if supervisor is not None and supervisor.is_running():
        session = supervisor.session()
        members = find_stack_processes(settings.home, session)
        _stop_programs(supervisor, report)
        supervisor.shutdown()
        ended = wait_until(lambda: not _alive(session), STOP_SECONDS)
        report("supervisor stopped" if ended else "the supervisor does not stop; ending it by force")
    else:
        members = []
        report("the supervisor is not running")
    left = _left(settings.home, session, members)
    if left:
        report(f"ending {len(left)} processes that did not stop")
        end_processes(left)
        left = _left(settings.home, session, members)
    if left:
        names = ", ".join(f"{process.pid} ({process.command[:60]})" for process in left)
        raise StackError(f"cannot end {names}; they belong to another user, end them as that user or as root")
    pid_file(settings).unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    return read_process(pid) is not None


def _left(home: Path, session: int | None, members: list[Process]) -> list[Process]:
    found = {process.pid: process for process in find_stack_processes(home, session)}
    found.update({process.pid: process for process in members if process.exists()})
    return list(found.values())


def _stop_programs(supervisor: Supervisor, report: Callable[[str], None]) -> None:
    """All at once, but Postgres after the programs that write to it; alone Supervisor stops one after the other."""

    def stopped(*, postgres: bool) -> bool:
        return not any(
            state.state in ("STARTING", "RUNNING", "STOPPING", "BACKOFF")
            for state in supervisor.states()
            if (state.name == "postgres") == postgres
        )

    for state in supervisor.states():
        if state.name != "postgres" and state.state in ("STARTING", "RUNNING", "BACKOFF"):
            supervisor.stop(state.full_name)
    if not wait_until(lambda: stopped(postgres=False), STOP_SECONDS, interval_seconds=0.2):
        report("some programs do not stop; ending them by force")
        return
    report("programs stopped")
    supervisor.stop("postgres")
    if wait_until(lambda: stopped(postgres=True), STOP_SECONDS, interval_seconds=0.1):
        report("postgres stopped")
