"""The pipeline's side of the slot agent: one line for everything that can go wrong, and nothing secret in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse

from agent.conftest import TOKEN, Agent
from contracts.agent_server import serving
from contracts.bento_stub import stub_bento
from contracts.services import free_port
from contracts.twins import TwinPackager
from slipway.adapters.docker_slots import DockerRuntime, ImagePackager
from slipway.adapters.slot_agent import SlotAgent
from slipway.core.containers import Container, container_address
from slipway.errors import ArtefactError, RuntimeSlotError
from slipway.ports import Package, Slot
from slipway.settings import Settings
from slipway.wiring.adapters import Adapters

ADDRESS = container_address("iris", "blue")
BLUE = Slot("iris", "blue", ADDRESS.port, host=ADDRESS.host)


@pytest.fixture
def url(agent: Agent) -> Iterator[str]:
    app = agent.http.app
    with serving(app) as found:  # type: ignore[arg-type]
        yield found


def runtime(url: str, token: str = TOKEN) -> DockerRuntime:
    return DockerRuntime(SlotAgent(url, token), lambda model: "serve")


def test_the_models_policy_and_the_rollout_reach_the_container(agent: Agent, url: str) -> None:
    runtime(url).start(Slot("iris", "blue", 3000, host=ADDRESS.host, rollout_id="r-7"), agent.bento("2"))
    made = agent.engine.created["slipway-iris-blue"]
    assert made.environment["SLIPWAY_SPOOL_WHEN_FULL"] == "serve"
    assert made.rollout_id == "r-7"
    assert [(one.address, one.version, one.running) for one in runtime(url).list()] == [(ADDRESS, "2", True)]


def test_the_slot_is_given_its_time_to_drain(agent: Agent, url: str) -> None:
    runtime(url).start(BLUE, agent.bento())
    runtime(url).stop(BLUE, 7)
    assert "stop slipway-iris-blue in 7 s" in agent.engine.calls


def test_the_wrong_token_is_an_error_without_the_token(agent: Agent, url: str) -> None:
    with pytest.raises(RuntimeSlotError, match="SLIPWAY_AGENT_TOKEN") as caught:
        runtime(url, "another-token-of-this-test").list()
    assert "another-token" not in str(caught.value)
    assert TOKEN not in str(caught.value)
    assert agent.engine.calls == []


def test_an_agent_that_is_away_is_one_line(agent: Agent) -> None:
    away = runtime(f"http://127.0.0.1:{free_port()}")
    for act in (away.list, lambda: away.stop(BLUE, 1), lambda: away.start(BLUE, agent.bento())):
        with pytest.raises(RuntimeSlotError, match="does not answer") as caught:
            act()
        assert "\n" not in str(caught.value)


def test_somebody_else_at_the_agents_address_is_not_believed() -> None:
    app = FastAPI()
    app.add_api_route("/slots", lambda: PlainTextResponse("<html>no", 404))
    with serving(app) as url, pytest.raises(RuntimeSlotError, match="something else"):
        runtime(url).list()


def test_docker_that_is_away_is_an_error_of_the_runtime(agent: Agent, url: str) -> None:
    agent.engine.down = True
    with pytest.raises(RuntimeSlotError, match="Docker does not answer"):
        runtime(url).list()


def test_a_damaged_bento_does_not_start(agent: Agent, url: str) -> None:
    package = agent.bento()
    (package.path / "src" / "model.txt").write_text("damaged")
    with pytest.raises(RuntimeSlotError, match="differs"):
        runtime(url).start(BLUE, package)


def test_a_container_of_others_is_an_error_of_the_runtime(agent: Agent, url: str) -> None:
    agent.engine.put(Container("slipway-iris-blue", "running", {}))
    with pytest.raises(RuntimeSlotError, match="not Slipway's"):
        runtime(url).start(BLUE, agent.bento())
    with pytest.raises(RuntimeSlotError, match="not Slipway's"):
        runtime(url).stop(BLUE, 1)


@dataclass
class StubPackager(TwinPackager):
    """Packages that are stub bentos."""

    bentos: Path
    damaged: set[str] = field(default_factory=set)

    def build(self, model: str, version: str) -> Package:
        return stub_bento(self.bentos, model, version)


def test_a_package_is_a_bento_and_its_image(agent: Agent, url: str) -> None:
    packager = ImagePackager(StubPackager(agent.bentos), SlotAgent(url, TOKEN))
    package = packager.build("iris", "6")
    assert packager.build("iris", "6") == package
    assert agent.engine.calls == ["build", "tag slipway-bento/iris:6"]
    packager.verify(package)


def test_a_damaged_package_is_an_error_of_the_artefact(agent: Agent, url: str) -> None:
    class Damaging(StubPackager):
        def build(self, model: str, version: str) -> Package:
            package = super().build(model, version)
            (package.path / "more").write_text("more")
            return package

    with pytest.raises(ArtefactError, match="differs"):
        ImagePackager(Damaging(agent.bentos), SlotAgent(url, TOKEN)).build("iris", "6")


@pytest.mark.parametrize(("chosen", "made"), [("docker", "ImagePackager"), ("supervisor", "BentoPackager")])
def test_the_setting_chooses_the_runtime(chosen: Any, made: str) -> None:
    settings = Settings(_env_file=None, runtime=chosen, agent_token=TOKEN)  # type: ignore[call-arg,arg-type]
    assert type(Adapters(settings).packager).__name__ == made
