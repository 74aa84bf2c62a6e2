"""What the slot agent's engine does: one suite over Docker in memory and over a real daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.bento_stub import stub_bento
from contracts.docker_daemon import BASE, MODEL, NETWORK, VOLUME, RealDocker
from contracts.engine_twin import TwinEngine
from contracts.services import eventually
from slipway.adapters.docker_engine import DockerEngine
from slipway.agent.bento_context import COMMAND, bento_context
from slipway.agent.engine import Engine
from slipway.agent.slots import SPOOL_DIR
from slipway.core.containers import LABELS, REPOSITORY, BentoContainer, Image, image_name
from slipway.errors import ArtefactError, RuntimeSlotError

NAME = f"slipway-{MODEL}-blue"


@dataclass
class Docker:
    """An engine and a folder of bentos for it."""

    engine: Engine
    bentos: Path

    def build(self, version: str = "1", content: str = "") -> Image:
        package = stub_bento(self.bentos, MODEL, version, content)
        labels = {LABELS.MODEL: MODEL, LABELS.VERSION: version, LABELS.DIGEST: package.digest}
        return self.engine.build(bento_context(package.path, package.digest, BASE, labels, 10))

    def tagged(self, version: str = "1", content: str = "") -> Image:
        built = self.build(version, content)
        self.engine.tag(built.id, f"{REPOSITORY}/{MODEL}", version)
        return built

    def names(self) -> set[str]:
        return {tag for image in self.engine.images() for tag in image.tags if MODEL in tag}

    def up(self, version: str = "1") -> BentoContainer:
        wanted = container(version)
        self.engine.create(wanted)
        self.engine.start(wanted.name)
        eventually(lambda: self.state() == "running")
        return wanted

    def state(self) -> str:
        there = self.engine.container(NAME)
        return there.state if there else "gone"


def container(version: str = "1") -> BentoContainer:
    return BentoContainer(
        model=MODEL,
        version=version,
        slot="blue",
        digest="d" * 64,
        command=COMMAND,
        environment={"SLIPWAY_VERSION": version, "SLIPWAY_SPOOL_DIR": str(SPOOL_DIR)},
        network=NETWORK,
        spool_volume=VOLUME,
        memory_mb=64,
        pids=32,
    )


@pytest.fixture(params=["twin", pytest.param("docker", marks=pytest.mark.compose)])
def docker(request: pytest.FixtureRequest, tmp_path: Path) -> Docker:
    engine = TwinEngine(BASE) if request.param == "twin" else request.getfixturevalue("real_docker").engine
    return Docker(engine, tmp_path)


def test_it_answers(docker: Docker) -> None:
    docker.engine.ping()


def test_what_is_not_there_is_none(docker: Docker) -> None:
    assert docker.engine.image(image_name(MODEL, "1")) is None
    assert docker.engine.container(NAME) is None


def test_an_image_has_no_name_until_it_is_tagged(docker: Docker) -> None:
    built = docker.build()
    assert built.labels[LABELS.VERSION] == "1"
    assert built.user == "10001:10001"
    assert docker.names() == set()
    docker.engine.tag(built.id, f"{REPOSITORY}/{MODEL}", "1")
    found = docker.engine.image(image_name(MODEL, "1"))
    assert found is not None
    assert (found.id, found.labels) == (built.id, built.labels)
    assert docker.names() == {image_name(MODEL, "1")}


def test_a_name_moves_to_the_newer_image_and_the_older_is_cleared_away(docker: Docker) -> None:
    old, new = docker.tagged(content="old"), docker.tagged(content="new")
    assert old.id != new.id
    docker.engine.remove_unfinished()
    found = docker.engine.image(image_name(MODEL, "1"))
    assert found is not None
    assert found.id == new.id
    assert docker.engine.image(old.id) is None


def test_a_context_that_breaks_off_builds_nothing(docker: Docker) -> None:
    package = stub_bento(docker.bentos, MODEL, content="x" * 3_000_000)
    labels = {LABELS.MODEL: MODEL, LABELS.VERSION: "1", LABELS.DIGEST: "0" * 64}
    with pytest.raises(ArtefactError, match="differs"):
        docker.engine.build(bento_context(package.path, "0" * 64, BASE, labels, 10))
    assert [image for image in docker.engine.images() if image.labels[LABELS.MODEL] == MODEL] == []
    assert docker.build().labels[LABELS.MODEL] == MODEL  # and the next one works


def test_an_unknown_base_is_an_error(docker: Docker) -> None:
    package = stub_bento(docker.bentos, MODEL)
    context = bento_context(package.path, package.digest, "slipway-no-such/image:1", {}, 10)
    with pytest.raises(RuntimeSlotError):
        docker.engine.build(context)


def test_removing_an_image_may_be_repeated(docker: Docker) -> None:
    docker.tagged()
    docker.engine.remove_image(image_name(MODEL, "1"))
    docker.engine.remove_image(image_name(MODEL, "1"))
    assert docker.names() == set()


def test_an_image_in_use_is_not_removed(docker: Docker) -> None:
    docker.tagged()
    docker.engine.create(container())
    with pytest.raises(RuntimeSlotError, match="Docker refuses"):
        docker.engine.remove_image(image_name(MODEL, "1"))
    assert docker.names() == {image_name(MODEL, "1")}


def test_a_container_goes_from_created_to_running_to_exited_to_gone(docker: Docker) -> None:
    docker.tagged()
    wanted = container()
    docker.engine.create(wanted)
    docker.engine.create(wanted)
    assert docker.state() == "created"
    docker.engine.start(NAME)
    docker.engine.start(NAME)
    eventually(lambda: docker.state() == "running")
    (listed,) = [one for one in docker.engine.containers() if one.name == NAME]
    assert listed.running
    assert {name: listed.labels[name] for name in wanted.labels} == wanted.labels
    docker.engine.stop(NAME, 5)
    docker.engine.stop(NAME, 5)
    assert docker.state() == "exited"
    docker.engine.start(NAME)
    eventually(lambda: docker.state() == "running")
    docker.engine.remove(NAME)
    docker.engine.remove(NAME)
    assert docker.state() == "gone"


@pytest.mark.parametrize("verb", ["stop", "remove"])
def test_what_is_gone_is_fine(docker: Docker, verb: str) -> None:
    acts: dict[str, Callable[[], None]] = {
        "stop": lambda: docker.engine.stop(NAME, 1),
        "remove": lambda: docker.engine.remove(NAME),
    }
    acts[verb]()


def test_starting_what_is_not_there_is_an_error(docker: Docker) -> None:
    with pytest.raises(RuntimeSlotError, match="Docker refuses"):
        docker.engine.start(NAME)


def test_a_container_needs_its_image(docker: Docker) -> None:
    with pytest.raises(RuntimeSlotError, match="Docker refuses"):
        docker.engine.create(container("77"))


def test_docker_that_is_away_is_one_line() -> None:
    engine = DockerEngine("unix:///nowhere/docker.sock", str(SPOOL_DIR))
    for act in (engine.ping, engine.images, engine.containers, lambda: engine.start(NAME)):
        with pytest.raises(RuntimeSlotError, match="Docker does not answer") as caught:
            act()
        assert "\n" not in str(caught.value)


# --- what only real containers show ----------------------------------------------------------------------------------

LOOK_AROUND = """
import json, os, pathlib, socket
def can(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "yes"
lines = pathlib.Path("/proc/self/status").read_text().splitlines()
status = dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)
run = pathlib.Path("/tmp/run")
run.write_text("#!/bin/sh\\n")
run.chmod(0o755)
print(json.dumps({
    "user": os.getuid(),
    "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
    "no_new_privileges": status["NoNewPrivs"],
    "bento": pathlib.Path("/bento/src/model.txt").read_text(),
    "write /bento": can(lambda: open("/bento/x", "w")),
    "write /": can(lambda: open("/x", "w")),
    "write spool": can(lambda: open(os.environ["SLIPWAY_SPOOL_DIR"] + "/x", "w")),
    "run from /tmp": can(lambda: os.execv("/tmp/run", ["run"])),
    "a way out": can(lambda: socket.create_connection(("192.0.2.1", 80), 2)),
    "docker": os.path.exists("/var/run/docker.sock"),
    "environment": sorted(os.environ),
}))
"""


@pytest.fixture
def running(real_docker: RealDocker, tmp_path: Path) -> Docker:
    made = Docker(real_docker.engine, tmp_path)
    made.tagged(content="the model")
    made.up()
    return made


@pytest.mark.compose
class TestContainers:
    def test_a_bento_can_do_no_more_than_it_needs(self, running: Docker, real_docker: RealDocker) -> None:
        found = json.loads(real_docker.run(NAME, LOOK_AROUND))
        environment = found.pop("environment")
        assert found.pop("a way out") in ("OSError", "TimeoutError")
        assert found == {
            "user": 10001,
            "capabilities": 0,
            "no_new_privileges": "1",
            "bento": "the model",
            "write /bento": "OSError",
            "write /": "OSError",
            "write spool": "yes",
            "run from /tmp": "PermissionError",
            "docker": False,
        }
        assert not [name for name in environment if "TOKEN" in name or "PASSWORD" in name]

    def test_docker_holds_it_to_its_limits(self, running: Docker, real_docker: RealDocker) -> None:
        found = real_docker.api.inspect_container(NAME)
        host = found["HostConfig"]
        assert not host["Privileged"]
        assert not host["Binds"]
        assert not host["PortBindings"]
        assert [(one["Type"], one["Name"], one["Destination"]) for one in found["Mounts"]] == [
            ("volume", VOLUME, str(SPOOL_DIR))
        ]
        assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (64 * 2**20, 64 * 2**20, 32)
        assert host["NetworkMode"] == NETWORK
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert found["Config"]["User"] == "10001:10001"

    def test_one_that_dies_returns_by_itself(self, running: Docker, real_docker: RealDocker) -> None:
        before = real_docker.api.inspect_container(NAME)["State"]["StartedAt"]
        real_docker.run(NAME, "import os, signal; os.kill(1, signal.SIGTERM)")
        eventually(lambda: real_docker.api.inspect_container(NAME)["State"]["StartedAt"] != before)
        eventually(lambda: running.state() == "running")

    def test_one_that_does_not_end_is_killed(self, real_docker: RealDocker, tmp_path: Path) -> None:
        docker = Docker(real_docker.engine, tmp_path)
        docker.tagged("9")
        docker.up("9")
        began = time.monotonic()
        docker.engine.stop(NAME, 1)
        assert docker.state() == "exited"
        assert time.monotonic() - began > 0.9

    def test_the_log_outlives_the_container(self, running: Docker, real_docker: RealDocker) -> None:
        path = f"{SPOOL_DIR}/kept"
        real_docker.run(NAME, f"open({path!r}, 'w').write('a record')")
        running.engine.remove(NAME)
        running.up()
        assert real_docker.run(NAME, f"print(open({path!r}).read(), end='')") == "a record"

    def test_a_container_whose_network_was_made_again_does_not_start(
        self, running: Docker, real_docker: RealDocker
    ) -> None:
        running.engine.stop(NAME, 5)
        real_docker.api.remove_network(NETWORK)
        real_docker.api.create_network(NETWORK, internal=True)
        with pytest.raises(RuntimeSlotError, match="Docker refuses to start"):
            running.engine.start(NAME)
        running.engine.remove(NAME)
        running.up()
