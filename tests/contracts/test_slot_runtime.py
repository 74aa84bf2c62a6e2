"""What every slot runtime does: one suite over the twin and over a real supervisord."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from contracts.services import RealSupervisor, eventually, free_port
from contracts.twins import TwinRuntime, package
from slipway.adapters.supervisor import SupervisorRuntime
from slipway.errors import RuntimeSlotError
from slipway.ports import Slot, SlotRuntime

# Stands for `bentoml serve PATH --host H --port P …`: answers with its process id and what it was told.
SERVER = """
import http.server, os, signal, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = [os.environ[name] for name in ("SLIPWAY_VERSION", "SLIPWAY_SLOT", "EXTRA")]
        body = " ".join([str(os.getpid()), *told]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
class Server(http.server.HTTPServer):
    allow_reuse_address = True
if os.environ["SLIPWAY_VERSION"] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
Server(("127.0.0.1", port), Handler).serve_forever()
"""


def supervisor_runtime(real: RealSupervisor, folder: Path) -> SupervisorRuntime:
    script = folder / "server with blanks%.py"
    script.write_text(SERVER)
    return SupervisorRuntime(
        real.uri,
        real.password,
        slots_dir=real.slots_dir,
        log_dir=folder / "logs",
        command=[sys.executable, str(script)],
        environment=lambda model: {"EXTRA": f"50% of {model}"},
    )


@pytest.fixture(params=["twin", pytest.param("supervisor", marks=pytest.mark.services)])
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SlotRuntime]:
    if request.param == "twin":
        yield TwinRuntime()
        return
    yield supervisor_runtime(request.getfixturevalue("supervisor"), tmp_path)


@pytest.fixture
def real(supervisor: RealSupervisor, tmp_path: Path) -> SupervisorRuntime:
    return supervisor_runtime(supervisor, tmp_path)


def slot(name: str = "blue") -> Slot:
    return Slot("code_language", "blue" if name == "blue" else "green", free_port())


def versions(runtime: SlotRuntime) -> dict[str, str | None]:
    return {slot.slot: slot.version for slot in runtime.list() if slot.running}


def test_nothing_runs_at_first(runtime: SlotRuntime) -> None:
    assert list(runtime.list()) == []


def test_a_started_slot_is_listed_as_it_runs(runtime: SlotRuntime) -> None:
    blue = slot()
    runtime.start(blue, package("code_language", "1"))
    eventually(lambda: versions(runtime) == {"blue": "1"})
    assert list(runtime.list()) == [replace(blue, version="1", bento_tag="code_language:v1", running=True)]


def test_both_slots_run_beside_each_other(runtime: SlotRuntime) -> None:
    runtime.start(slot("blue"), package("code_language", "1"))
    runtime.start(slot("green"), package("code_language", "2"))
    eventually(lambda: versions(runtime) == {"blue": "1", "green": "2"})


def test_another_version_replaces_the_first(runtime: SlotRuntime) -> None:
    blue = slot()
    runtime.start(blue, package("code_language", "1"))
    runtime.start(blue, package("code_language", "2"))
    eventually(lambda: versions(runtime) == {"blue": "2"})


def test_stopping_leaves_nothing_and_may_be_repeated(runtime: SlotRuntime) -> None:
    blue = slot()
    runtime.start(blue, package("code_language", "1"))
    runtime.stop(blue, 5)
    runtime.stop(blue, 5)
    assert list(runtime.list()) == []


def answer(slot: Slot) -> list[str]:
    return httpx.get(f"http://127.0.0.1:{slot.port}/").text.split()


def up(slot: Slot) -> Callable[[], bool]:
    return lambda: httpx.get(f"http://127.0.0.1:{slot.port}/").status_code == 200


@pytest.mark.services
class TestSupervisor:
    def test_the_process_is_told_what_it_is(self, real: SupervisorRuntime) -> None:
        blue = slot()
        real.start(blue, package("code_language", "1"))
        eventually(up(blue))
        assert answer(blue)[1:] == ["1", "blue", "50%", "of", "code_language"]

    def test_starting_again_leaves_the_process_alone(self, real: SupervisorRuntime) -> None:
        blue = slot()
        real.start(blue, package("code_language", "1"))
        eventually(up(blue))
        process = answer(blue)[0]
        real.start(blue, package("code_language", "1"))
        assert answer(blue)[0] == process

    def test_a_killed_process_returns_by_itself(self, real: SupervisorRuntime) -> None:
        blue = slot()
        real.start(blue, package("code_language", "1"))
        eventually(up(blue))
        process = answer(blue)[0]
        os.kill(int(process), signal.SIGKILL)
        eventually(lambda: answer(blue)[0] != process)

    def test_slots_return_after_a_reboot(self, real: SupervisorRuntime, supervisor: RealSupervisor) -> None:
        blue = slot()
        real.start(blue, package("code_language", "1"))
        eventually(up(blue))
        supervisor.stop()
        with pytest.raises(RuntimeSlotError, match="does not answer"):
            real.list()
        supervisor.start()
        eventually(up(blue))
        assert versions(real) == {"blue": "1"}

    def test_a_file_that_was_written_but_not_loaded_is_not_taken_for_what_runs(
        self, real: SupervisorRuntime, supervisor: RealSupervisor
    ) -> None:
        blue = slot()
        real.start(blue, package("code_language", "1"))
        eventually(up(blue))
        path = supervisor.slots_dir / "slot-code_language-blue.conf"
        path.write_text(path.read_text().replace('"version": "1"', '"version": "2"').replace('="1"', '="2"'))
        assert [(found.version, found.running) for found in real.list()] == [(None, True)]
        real.start(blue, package("code_language", "2"))
        eventually(lambda: versions(real) == {"blue": "2"})
        eventually(up(blue))
        assert answer(blue)[1] == "2"

    def test_a_process_that_does_not_end_is_killed(self, real: SupervisorRuntime) -> None:
        blue = slot()
        real.start(blue, package("code_language", "stubborn"))
        eventually(up(blue))
        real.stop(blue, 0.2)
        assert list(real.list()) == []
        with pytest.raises(httpx.ConnectError):
            answer(blue)

    def test_the_wrong_password_is_an_error_without_the_password(self, supervisor: RealSupervisor) -> None:
        supervisor_with_another = replace(supervisor, password="not-the-password")
        runtime = supervisor_runtime(supervisor_with_another, supervisor.folder)
        with pytest.raises(RuntimeSlotError) as caught:
            runtime.list()
        assert "not-the-password" not in str(caught.value)

    def test_values_that_supervisor_cannot_pass_on_are_refused(
        self, supervisor: RealSupervisor, tmp_path: Path
    ) -> None:
        runtime = SupervisorRuntime(
            supervisor.uri,
            supervisor.password,
            slots_dir=supervisor.slots_dir,
            log_dir=tmp_path,
            command=["true"],
            environment=lambda model: {"BAD": 'a" ; b'},
        )
        with pytest.raises(RuntimeSlotError, match="BAD"):
            runtime.start(slot(), package("code_language", "1"))
        assert list(runtime.list()) == []
