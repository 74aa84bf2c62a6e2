"""What the slot agent does: every verb can be repeated, from wherever it was cut off."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

import pytest

from agent.conftest import BASE, Agent, image_of, new_agent
from contracts.engine_twin import TwinEngine
from contracts.twins import fault_hook
from slipway.agent.requests import StartSlot, StopSlot
from slipway.core.containers import LABELS, Container


def test_a_started_slot_is_listed_as_it_runs(agent: Agent) -> None:
    package = agent.bento("3")
    assert agent.start(package, rollout_id="r-1") == {
        "model": "iris",
        "slot": "blue",
        "version": "3",
        "digest": package.digest,
        "rollout_id": "r-1",
        "state": "running",
        "running": True,
        "host": "slipway-iris-blue",
        "port": 3000,
    }
    assert agent.listed() == {"iris-blue": ("3", True)}


def test_starting_again_changes_nothing(agent: Agent) -> None:
    package = agent.bento()
    agent.start(package, rollout_id="r-1")
    before = list(agent.engine.calls)
    agent.start(package, rollout_id="r-2")
    assert agent.engine.calls == before == ["build", "tag slipway-bento/iris:1", *_up("blue")]


def test_another_version_replaces_the_first(agent: Agent) -> None:
    agent.start(agent.bento("1"))
    agent.start(agent.bento("2"))
    assert agent.listed() == {"iris-blue": ("2", True)}
    assert agent.engine.calls[-4:] == ["stop slipway-iris-blue in 20 s", "remove slipway-iris-blue", *_up("blue")]


def test_other_settings_replace_the_container(agent: Agent) -> None:
    package = agent.bento()
    agent.start(package)
    later = new_agent(agent.bentos, agent.engine, bento_memory_mb=256)
    later.start(package)
    assert agent.engine.created["slipway-iris-blue"].memory_mb == 256
    before = list(agent.engine.calls)
    later.start(package, when_full="serve")
    assert agent.engine.calls != before
    assert agent.engine.created["slipway-iris-blue"].environment["SLIPWAY_SPOOL_WHEN_FULL"] == "serve"


def test_both_slots_and_other_models_are_not_touched(agent: Agent) -> None:
    agent.start(agent.bento("1"), "blue")
    agent.start(agent.bento("2"), "green")
    agent.start(agent.bento("1", "code_language"), "blue")
    agent.stop("blue")
    assert agent.listed() == {"iris-green": ("2", True), "code_language-blue": ("1", True)}


def test_stopping_leaves_nothing_and_may_be_repeated(agent: Agent) -> None:
    agent.start(agent.bento())
    agent.stop()
    before = list(agent.engine.calls)
    agent.stop()
    agent.stop("green")
    assert agent.engine.calls == before
    assert before[-2:] == ["stop slipway-iris-blue in 2 s", "remove slipway-iris-blue"]
    assert agent.listed() == {}


def test_a_drained_slot_keeps_its_container_and_starts_again_as_it_is(agent: Agent) -> None:
    package = agent.bento()
    agent.start(package)
    agent.stop(verb="drain")
    agent.stop(verb="drain")
    assert agent.listed() == {"iris-blue": ("1", False)}
    agent.start(package)
    assert agent.engine.calls[-2:] == ["stop slipway-iris-blue in 2 s", "start slipway-iris-blue"]


def test_what_cannot_start_as_it_is_is_made_anew(agent: Agent) -> None:
    package = agent.bento()
    agent.start(package)
    agent.stop(verb="drain")
    agent.engine.unstartable.add("slipway-iris-blue")
    agent.start(package)
    assert agent.engine.calls[-3:] == ["remove slipway-iris-blue", *_up("blue")]
    assert agent.listed() == {"iris-blue": ("1", True)}


def test_a_container_that_docker_is_about_to_restart_is_left_to_it(agent: Agent) -> None:
    package = agent.bento()
    agent.start(package)
    there = agent.engine.container("slipway-iris-blue")
    assert there is not None
    agent.engine.put(Container(there.name, "restarting", there.labels))
    before = list(agent.engine.calls)
    assert not agent.start(package)["running"]
    assert agent.engine.calls == before


@pytest.mark.parametrize("state", ["paused", "dead"])
def test_a_container_in_a_state_of_no_use_is_replaced(agent: Agent, state: str) -> None:
    package = agent.bento()
    agent.start(package)
    there = agent.engine.container("slipway-iris-blue")
    assert there is not None
    agent.engine.put(Container(there.name, state, there.labels))
    assert agent.start(package)["running"]


def test_a_bento_is_told_what_it_is_and_has_nothing_of_the_agents(agent: Agent) -> None:
    package = agent.bento("4")
    agent.start(package)
    wanted = agent.engine.created["slipway-iris-blue"]
    assert wanted.image == "slipway-bento/iris:4"
    told = wanted.environment
    assert [told[f"SLIPWAY_{name}"] for name in ("MODEL", "VERSION", "SLOT")] == ["iris", "4", "blue"]
    assert told["SLIPWAY_BENTO_DIGEST"] == package.digest
    assert not [name for name in told if "TOKEN" in name or "PASSWORD" in name or "KEY" in name]


class Killed(BaseException):
    """The agent ended here."""


@pytest.mark.parametrize("point", ["image built", "image tagged", "container created", "container started"])
def test_a_start_that_was_cut_off_is_finished_by_the_next(agent: Agent, point: str) -> None:
    package = agent.bento()

    def at(reached: str) -> None:
        if reached == point:
            raise Killed

    with fault_hook(at), pytest.raises(Killed):
        agent.slots.start(StartSlot(slot="blue", **image_of(package)))
    agent.start(package)
    assert agent.listed() == {"iris-blue": ("1", True)}
    assert agent.versions() == ["1"]
    assert agent.engine.calls.count("create slipway-iris-blue") == 1
    assert len(agent.engine.images()) == 1


def test_a_stop_that_was_cut_off_is_finished_by_the_next(agent: Agent) -> None:
    agent.start(agent.bento())

    def at(reached: str) -> None:
        if reached == "container stopped":
            raise Killed

    with fault_hook(at), pytest.raises(Killed):
        agent.slots.stop(StopSlot(model="iris", slot="blue", seconds=2.0))
    assert agent.listed() == {"iris-blue": ("1", False)}
    agent.stop()
    assert agent.listed() == {}


def test_many_at_once_are_as_one(agent: Agent) -> None:
    package = agent.bento()
    threads = [Thread(target=agent.start, args=(package,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert agent.engine.calls == ["build", "tag slipway-bento/iris:1", *_up("blue")]


def test_without_docker_every_verb_says_so(agent: Agent) -> None:
    agent.engine.down = True
    for path in ("/slots", "/images"):
        answer = agent.http.get(path)
        assert answer.status_code == 503
        assert "Docker does not answer" in answer.json()["detail"]


# --- images ---------------------------------------------------------------------------------------------------------


def test_an_image_is_built_once(agent: Agent) -> None:
    package = agent.bento()
    first = agent.post("/images/build", image_of(package)).json()
    assert agent.post("/images/build", image_of(package)).json() == first
    assert agent.engine.calls == ["build", "tag slipway-bento/iris:1"]


def test_a_version_whose_bento_was_built_again_gets_a_new_image(agent: Agent) -> None:
    agent.post("/images/build", image_of(agent.bento()))
    again = agent.bento(content="another")
    agent.post("/images/build", image_of(again))
    assert [one["digest"] for one in agent.http.get("/images").json()["images"]] == [again.digest]
    assert len(agent.engine.images()) == 1  # the one without a name went


def test_the_last_three_images_of_a_model_stay(agent: Agent) -> None:
    for version in range(1, 13):
        agent.post("/images/build", image_of(agent.bento(str(version))))
    agent.post("/images/build", image_of(agent.bento("1", "housing")))
    assert agent.versions() == ["10", "11", "12"]
    assert agent.versions("housing") == ["1"]


def test_what_a_container_needs_stays_however_old(agent: Agent) -> None:
    agent.start(agent.bento("1"), "blue")
    agent.stop(verb="drain")  # a container that does not run needs its image too
    for version in range(2, 7):
        agent.post("/images/build", image_of(agent.bento(str(version))))
    assert agent.versions() == ["1", "4", "5", "6"]
    agent.stop("blue")
    assert agent.versions() == ["4", "5", "6"]


def test_a_rollback_to_an_older_version_builds_its_image_again(agent: Agent) -> None:
    first = agent.bento("1")
    for version in ("2", "3", "4"):
        agent.post("/images/build", image_of(agent.bento(version)))
    agent.post("/images/build", image_of(first))
    agent.start(first)
    assert agent.listed() == {"iris-blue": ("1", True)}
    assert agent.versions() == ["1", "2", "3", "4"]


def test_an_image_stays_while_its_container_is_made(agent: Agent) -> None:
    old, newer = agent.bento("1"), [agent.bento(version) for version in ("2", "3", "4", "5")]
    with agent.images.held(old.model, old.version, old.digest):
        for package in newer:
            agent.post("/images/build", image_of(package))
        assert agent.versions() == ["1", "3", "4", "5"]
    assert agent.post("/images/trim", {"model": "iris"}).json() == {"removed": ["slipway-bento/iris:1"]}


def test_the_image_says_what_it_was_made_of(tmp_path: Path) -> None:
    agent = new_agent(tmp_path / "bentos", TwinEngine(BASE))
    package = agent.bento("5")
    agent.post("/images/build", image_of(package))
    image = agent.engine.image("slipway-bento/iris:5")
    assert image is not None
    assert image.labels == {LABELS.MODEL: "iris", LABELS.VERSION: "5", LABELS.DIGEST: package.digest}
    assert agent.engine.contexts[0]["Dockerfile"].decode().splitlines()[::2] == [f"FROM {BASE}", "COPY bento /bento"]


def _up(slot: str) -> list[str]:
    return [f"create slipway-iris-{slot}", f"start slipway-iris-{slot}"]
