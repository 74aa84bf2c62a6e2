"""A driver is killed with SIGKILL at every fault point; the next one must end with one consistent truth.

Postgres is real; gateway and runtime are twins that live in files, so both drivers meet the same world.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.services import Cluster
from contracts.twins import fault_hook
from contracts.world import QUICK, World, make_world
from slipway.core.checks import Pair
from slipway.core.rollout_record import Phase
from slipway.jobs.parts import LoggedRequest
from slipway.jobs.release import CHAMPION, awaits_approval
from slipway.spec import Step

pytestmark = pytest.mark.services
FORK = multiprocessing.get_context("fork")
STEPS = QUICK.model_copy(update={"steps": (Step(weight=10), Step(weight=100)), "ready_timeout_seconds": 3})

EVERYTHING = STEPS.model_copy(
    update={
        "replay_requests": 5,
        "shadow_percent": 10,
        "shadow_seconds": 1.0,
        "approval": "before_promotion",
        "deadline_seconds": 600.0,
    }
)


def release(world: World) -> None:
    world.release("3", STEPS)


def release_that_fails(world: World) -> None:
    """The new version stops answering its golden rows as soon as it has traffic."""
    if world.parts.store.latest("iris", phase=Phase.ROLLED_BACK) is None:
        world.begin("3", STEPS)
    while rollout := world.parts.store.active("iris"):
        if rollout.confirmed_at and rollout.phase in (Phase.SHIFTING, Phase.BAKING):
            world.probe.wrong.add("3")
        world.releases.advance("iris")
        world.clock.sleep(0.2)


def first_release(world: World) -> None:
    world.release("1", STEPS, model="housing")


def warm_rollback(world: World) -> None:
    world.releases.rollback("iris", actor="ops", reason="killed", dag_run="run-1")


def cold_rollback(world: World) -> None:
    world.releases.rollback("iris", "0", actor="ops", reason="killed", dag_run="run-1")


def abort(world: World) -> None:
    if world.parts.store.latest("iris", phase=Phase.ABORTED) is None:
        world.begin("3", STEPS)
    while rollout := world.parts.store.active("iris"):
        if rollout.phase is Phase.BAKING or rollout.command == "abort":
            world.releases.abort("iris", actor="ops", reason="killed")
        else:
            world.releases.advance("iris")
            world.clock.sleep(0.2)


def release_with_everything(world: World) -> None:
    """Replay, shadow and an approval on the way."""
    world.answers.requests = [LoggedRequest("r", ({"a": 1.0},), ("setosa",), (None,), 1.0)] * 5
    world.answers.mirrored = [Pair("setosa", "setosa")] * 200
    if (last := world.parts.store.latest("iris")) is None or last.version != "3":
        world.begin("3", EVERYTHING)
    while rollout := world.parts.store.active("iris"):
        if awaits_approval(rollout):
            world.releases.approve("iris", actor="Ada", reason="fine")
        world.releases.advance("iris")
        world.clock.sleep(0.5)


def supersede(world: World) -> None:
    """Version 4 comes while version 3 has no traffic yet."""
    last = world.parts.store.latest("iris")
    if last is None or last.version not in ("3", "4"):
        world.begin("3", STEPS)
        world.until(Phase.VERIFYING)
    world.release("4", STEPS)


def split(world: World) -> None:
    world.releases.set_split("iris", {"champion": 60, "challenger": 40}, actor="ops", reason="killed")


def upkeep(world: World) -> None:
    """The keeper's own acts: a slot is no longer kept warm, and the alias is not where it should be."""
    slots = world.parts.store.slots("iris")
    if all(slot.version for slot in slots):  # else a keeper was here already
        world.registry.set_alias("iris", CHAMPION, "1")
        world.parts.store.alias_moved("iris", "1")
        live, now = world.parts.store.traffic_of("iris").live_slot, world.clock.now()
        (warm,) = (slot.slot for slot in slots if slot.slot != live)
        world.parts.store.keep_warm("iris", warm, now, now)
    world.releases.reconcile()


# What each scenario may end with: the live version of iris, and how many more `live` rows the ledger then has.
SCENARIOS: dict[str, tuple[Callable[[World], None], set[tuple[str, int]]]] = {
    "release": (release, {("3", 1)}),
    "release that fails": (release_that_fails, {("2", 0)}),
    "first release": (first_release, {("2", 0)}),
    "warm rollback": (warm_rollback, {("1", 1)}),
    "cold rollback": (cold_rollback, {("0", 1)}),
    "abort": (abort, {("2", 0)}),
    "release with everything": (release_with_everything, {("3", 1)}),
    "supersede": (supersede, {("4", 1)}),
    "split": (split, {("2", 0)}),
    "upkeep": (upkeep, {("2", 0)}),
}


class Place:
    """One database and one folder, in which `0`, `1` and `2` have been live."""

    def __init__(self, cluster: Cluster, folder: Path, template: str) -> None:
        name = f"killed_{uuid.uuid4().hex[:10]}"
        cluster.execute(f"create database {name} template {template}")
        self.url, self.folder = cluster.url(name), folder
        self._drop = lambda: cluster.execute(f"drop database {name} with (force)")

    def world(self) -> World:
        made = make_world(self.url, self.folder)
        made.clock.time = made.clock.time.replace(hour=12)
        return made

    def close(self) -> None:
        self._drop()


@pytest.fixture(scope="module")
def before(postgres: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A database and a folder to copy, with three versions released."""
    folder = tmp_path_factory.mktemp("before")
    postgres.execute("create database before template template_slipway")
    world = make_world(postgres.url("before"), folder)
    for version in ("0", "1", "2"):
        world.release(version)
    world.database.close()
    return "before", folder


def place(postgres: Cluster, before: tuple[str, Path], folder: Path) -> Place:
    folder.mkdir()
    for file in before[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return Place(postgres, folder, before[0])


def run_and_die(where: Place, scenario: str, at: int) -> None:
    """In a child: run the scenario, and kill this process at its fault point number `at`."""
    reached = 0

    def hook(name: str) -> None:
        nonlocal reached
        reached += 1
        if reached == at:
            os.kill(os.getpid(), signal.SIGKILL)

    with fault_hook(hook):
        SCENARIOS[scenario][0](where.world())
    os._exit(0)


def points(where: Place, scenario: str) -> list[str]:
    names: list[str] = []
    with fault_hook(names.append):
        world = where.world()
        SCENARIOS[scenario][0](world)
        world.database.close()
    return names


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_anywhere_the_next_driver_finishes(
    scenario: str, postgres: Cluster, before: tuple[str, Path], tmp_path: Path
) -> None:
    dry = place(postgres, before, tmp_path / "dry")
    names = points(dry, scenario)
    dry.close()
    assert len(names) >= 2
    assert scenario != "upkeep" or {"taken_down", "realiased"} <= set(names)
    for number, name in enumerate(names, start=1):
        if names[: number - 1].count(name) >= (1 if ":" in name else 2):
            continue  # the same place once more proves nothing new
        where = place(postgres, before, tmp_path / str(number))
        child = FORK.Process(target=run_and_die, args=(where, scenario, number))
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL, f"{scenario} did not come to {name} ({number})"
        world = where.world()
        world.clock.sleep(60)  # the dead driver's work is noticed later, never earlier
        run, allowed = SCENARIOS[scenario]
        run(world)
        world.releases.reconcile()
        lived = [row.version for row in world.parts.ledger.went_live("iris")]
        assert (world.live(), len(lived) - 3) in allowed, f"killed at {name} ({number}): {lived}"
        for model in ("iris", "housing"):
            world.check_truth(model)
        assert world.releases.reconcile() == [], f"killed at {name} ({number})"
        champion = world.registry.by_alias("iris", CHAMPION)
        assert champion is not None
        assert champion.version == world.live() == world.parts.store.traffic_of("iris").alias_version
        world.database.close()
        where.close()
