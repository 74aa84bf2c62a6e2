"""What every slot runtime does: over the twin, a real supervisord, the slot agent, and the agent with Docker."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from contracts.agent_server import agent_over
from contracts.bento_stub import stub_bento
from contracts.docker_daemon import BASE, MODEL, NETWORK, VOLUME, RealDocker
from contracts.engine_twin import TwinEngine
from contracts.services import RealSupervisor, eventually, free_port
from contracts.twins import TwinRuntime, package
from slipway.adapters.supervisor import SupervisorRuntime
from slipway.core.containers import container_address
from slipway.errors import RuntimeSlotError
from slipway.ports import Package, Slot, SlotRuntime
from slipway.settings import Settings

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


@dataclass(frozen=True)
class Site:
    """A runtime, and what it is given to run."""

    runtime: SlotRuntime
    package: Callable[[str], Package]
    slot: Callable[[str], Slot]

    def versions(self) -> dict[str, str | None]:
        return versions(self.runtime)


DOCKERS = ["agent", pytest.param("docker", marks=pytest.mark.compose)]


@pytest.fixture(params=["twin", pytest.param("supervisor", marks=pytest.mark.services), *DOCKERS])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    if request.param == "twin":
        yield Site(TwinRuntime(), of_code_language, slot)
    elif request.param == "supervisor":
        yield Site(supervisor_runtime(request.getfixturevalue("supervisor"), tmp_path), of_code_language, slot)
    elif request.param == "agent":
        with agent_over(TwinEngine(BASE), tmp_path, Settings(_env_file=None, serving_image=BASE)) as runtime:
            yield Site(runtime, lambda version: stub_bento(tmp_path, MODEL, version), container_slot)
    else:
        real: RealDocker = request.getfixturevalue("real_docker")
        chosen = Settings(_env_file=None, serving_image=BASE, serving_network=NETWORK, spool_volume=VOLUME)
        with agent_over(real.engine, tmp_path, chosen) as runtime:
            yield Site(runtime, lambda version: stub_bento(tmp_path, MODEL, version), container_slot)


def of_code_language(version: str) -> Package:
    return package("code_language", version)


def container_slot(name: str = "blue") -> Slot:
    which = "blue" if name == "blue" else "green"
    address = container_address(MODEL, which)
    return Slot(MODEL, which, address.port, host=address.host)


@pytest.fixture
def real(supervisor: RealSupervisor, tmp_path: Path) -> SupervisorRuntime:
    return supervisor_runtime(supervisor, tmp_path)


def slot(name: str = "blue") -> Slot:
    return Slot("code_language", "blue" if name == "blue" else "green", free_port())


def versions(runtime: SlotRuntime) -> dict[str, str | None]:
    return {slot.slot: slot.version for slot in runtime.list() if slot.running}


def test_nothing_runs_at_first(site: Site) -> None:
    assert list(site.runtime.list()) == []


def test_a_started_slot_is_listed_as_it_runs(site: Site) -> None:
    blue = site.slot("blue")
    site.runtime.start(blue, site.package("1"))
    eventually(lambda: site.versions() == {"blue": "1"})
    assert list(site.runtime.list()) == [replace(blue, version="1", bento_tag=f"{blue.model}:v1", running=True)]


def test_both_slots_run_beside_each_other(site: Site) -> None:
    site.runtime.start(site.slot("blue"), site.package("1"))
    site.runtime.start(site.slot("green"), site.package("2"))
    eventually(lambda: site.versions() == {"blue": "1", "green": "2"})


def test_starting_again_changes_nothing(site: Site) -> None:
    blue = site.slot("blue")
    site.runtime.start(blue, site.package("1"))
    eventually(lambda: site.versions() == {"blue": "1"})
    site.runtime.start(replace(blue, rollout_id="another"), site.package("1"))
    assert site.versions() == {"blue": "1"}


def test_another_version_replaces_the_first(site: Site) -> None:
    blue = site.slot("blue")
    site.runtime.start(blue, site.package("1"))
    site.runtime.start(blue, site.package("2"))
    eventually(lambda: site.versions() == {"blue": "2"})


def test_stopping_one_slot_leaves_the_other(site: Site) -> None:
    site.runtime.start(site.slot("blue"), site.package("1"))
    site.runtime.start(site.slot("green"), site.package("2"))
    site.runtime.stop(site.slot("blue"), 5)
    eventually(lambda: site.versions() == {"green": "2"})
    assert [found.slot for found in site.runtime.list()] == ["green"]


def test_stopping_leaves_nothing_and_may_be_repeated(site: Site) -> None:
    blue = site.slot("blue")
    site.runtime.start(blue, site.package("1"))
    site.runtime.stop(blue, 5)
    site.runtime.stop(blue, 5)
    assert list(site.runtime.list()) == []


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
