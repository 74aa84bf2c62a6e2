from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from slipway.settings import Settings
from slipway.stack.processes import (
    STACK_VARIABLE,
    Process,
    ancestors,
    end_processes,
    find_stack_processes,
    listener,
    orphans,
    port_is_free,
    read_process,
    wait_until,
)
from slipway.stack.reaper import listen
from slipway.stack.stop import recorded_session, stop_stack
from slipway.stack.supervisor import pid_file

Spawn = Callable[..., subprocess.Popen[bytes]]
Family = tuple[subprocess.Popen[bytes], list[Process]]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    started: list[subprocess.Popen[bytes]] = []

    def run(code: str = "import time; time.sleep(600)", **options: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", "-c", f"print('up', flush=True); {code}"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload]
        started.append(process)
        assert process.stdout.readline() == b"up\n"
        return process  # type: ignore[no-any-return]

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_process_is_found_by_the_mark_in_its_environment(tmp_path: Path, spawn: Spawn) -> None:
    ours = spawn(env={STACK_VARIABLE: str(tmp_path)})
    spawn(env={STACK_VARIABLE: str(tmp_path / "other")})
    spawn(env={"SLIPWAY_HOME": str(tmp_path)})  # a user's own program, started from a shell with that setting
    assert [process.pid for process in find_stack_processes(tmp_path)] == [ours.pid]


def test_a_process_without_the_mark_is_found_by_session_and_folder(tmp_path: Path, spawn: Spawn) -> None:
    (tmp_path / "data").mkdir()
    ours = spawn(env={}, cwd=tmp_path / "data", start_new_session=True)
    spawn(env={}, cwd=tmp_path / "data")
    assert [process.pid for process in find_stack_processes(tmp_path, session=ours.pid)] == [ours.pid]
    assert find_stack_processes(tmp_path) == []


def test_the_caller_and_its_parents_are_never_among_them(tmp_path: Path, spawn: Spawn) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]; from slipway.stack.processes import find_stack_processes as f;"
        "from pathlib import Path; import os; print(f(Path(os.environ['SLIPWAY_STACK'])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *sys.path],
        env={STACK_VARIABLE: str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
    assert {os.getpid(), os.getppid(), 1} <= ancestors(os.getpid())


def test_ending_asks_first_and_insists_afterwards(spawn: Spawn) -> None:
    stubborn = spawn(
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    )
    assert stubborn.stdout is not None
    assert stubborn.stdout.readline() == b"deaf\n"
    polite = spawn()
    found = [process for pid in (stubborn.pid, polite.pid) if (process := read_process(pid))]
    end_processes(found, grace_seconds=0.3)
    assert (polite.wait(5), stubborn.wait(5)) == (-signal.SIGTERM, -signal.SIGKILL)
    assert not any(process.exists() for process in found)


def test_a_later_process_of_the_same_number_is_another_one(spawn: Spawn) -> None:
    process = read_process(spawn().pid)
    assert process is not None
    assert process.exists()
    assert not type(process)(process.pid, process.parent, process.session, process.started - 1, "").exists()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_taken_port_names_its_owner(kind: socket.SocketKind) -> None:
    udp = kind is socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", 0))
        if not udp:
            server.listen()
        port = server.getsockname()[1]
        assert not port_is_free("127.0.0.1", port, udp=udp)
        owner = listener(port, udp=udp)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert port_is_free("127.0.0.1", port, udp=udp)
    assert listener(port, udp=udp) is None


def test_waiting_ends_at_the_deadline() -> None:
    assert wait_until(lambda: True, 0)
    assert not wait_until(lambda: False, 0.05, interval_seconds=0.01)


def _event(pid: int) -> bytes:
    payload = f"processname:mlflow groupname:mlflow from_state:RUNNING expected:0 pid:{pid}"
    header = "ver:3.0 server:supervisor serial:1 pool:reaper poolserial:1 eventname:PROCESS_STATE_EXITED"
    return f"{header} len:{len(payload)}\n{payload}".encode()


def test_the_reaper_ends_the_group_of_a_program_that_was_killed(spawn: Spawn) -> None:
    # The leader dies and leaves a child in its group, as a killed server leaves its workers.
    sleeper = "[sys.executable, '-S', '-c', 'import time; time.sleep(600)']"
    leader = spawn(
        f"import subprocess, sys, time; print(subprocess.Popen({sleeper}).pid, flush=True); time.sleep(600)",
        start_new_session=True,
    )
    assert leader.stdout is not None
    child = read_process(int(leader.stdout.readline()))
    leader.kill()
    leader.wait()
    assert child is not None
    assert child.exists()
    answers = BytesIO()
    listen(BytesIO(_event(leader.pid)), answers)
    assert wait_until(lambda: not child.exists(), 5)
    assert answers.getvalue() == b"READY\nRESULT 2\nOKREADY\n"


def _starts(code: str, *, leads: bool = True) -> str:
    """Code that leads a process group of its own, says who it is, starts more code, and stays."""
    group = "os.setpgid(0, 0); " if leads else ""
    child = f"subprocess.run([sys.executable, '-u', '-S', '-c', {code!r}]); " if code else ""
    return f"import os, subprocess, sys, time; {group}print(os.getpid(), flush=True); {child}time.sleep(600)"


@pytest.fixture
def family(spawn: Spawn) -> Iterator[Family]:
    """A supervisor; a worker, its task, which leads a group as Airflow's do, and a program that the task started."""
    worker = _starts(_starts(_starts("", leads=False)))
    supervisor = spawn(_starts(worker, leads=False), start_new_session=True)
    assert supervisor.stdout is not None
    found = [read_process(int(supervisor.stdout.readline())) for _ in range(4)]
    assert all(found)
    programs = [process for process in found[1:] if process]
    yield supervisor, programs
    end_processes(programs, grace_seconds=1)


def test_the_reaper_ends_tasks_that_lead_groups_of_their_own(family: Family, spawn: Spawn) -> None:
    supervisor, (worker, task, program) = family
    other = spawn()
    assert orphans(supervisor.pid) == []
    os.kill(worker.pid, signal.SIGKILL)
    assert wait_until(lambda: {one.pid for one in orphans(supervisor.pid)} == {task.pid, program.pid}, 5)
    listen(BytesIO(_event(worker.pid)), BytesIO(), supervisor.pid)
    assert not task.exists()
    assert not program.exists()
    assert supervisor.poll() is None
    assert other.poll() is None


def test_without_its_supervisor_nothing_is_an_orphan(family: Family) -> None:
    supervisor, programs = family
    supervisor.kill()
    supervisor.wait()
    assert orphans(supervisor.pid) == []
    listen(BytesIO(_event(2**22 - 7)), BytesIO(), supervisor.pid)
    assert all(one.exists() for one in programs)


def test_the_reaper_survives_a_group_that_is_gone() -> None:
    answers = BytesIO()
    listen(BytesIO(_event(2**22 - 7) + _event(0)), answers)
    assert answers.getvalue().count(b"RESULT 2\nOK") == 2


def test_a_recorded_session_counts_unless_its_number_went_to_another_program(settings: Settings, spawn: Spawn) -> None:
    assert recorded_session(settings) is None
    pid_file(settings).parent.mkdir(parents=True)
    pid_file(settings).write_text(str(spawn().pid))
    assert recorded_session(settings) is None
    pid_file(settings).write_text("4194000\n")
    assert recorded_session(settings) == 4194000


def test_down_without_a_supervisor_ends_what_a_killed_one_left(
    settings: Settings, spawn: Spawn, free_port: int
) -> None:
    left = spawn(env={STACK_VARIABLE: str(settings.home)})
    lines: list[str] = []
    stop_stack(settings.model_copy(update={"supervisor_port": free_port}), lines.append)
    assert left.wait(5) == -signal.SIGTERM
    assert lines == ["the supervisor is not running", "ending 1 processes that did not stop"]
