"""The reconciler repairs what differs from the tables, and says what it cannot."""

from __future__ import annotations

import pytest

from contracts.twins import package
from contracts.world import QUICK, World
from slipway.core.rollout_record import Phase
from slipway.core.routes import BackendStats
from slipway.ports import Slot

pytestmark = pytest.mark.services


def kinds(world: World) -> list[tuple[str, str, bool]]:
    return [(finding.kind, finding.model, finding.repaired) for finding in world.releases.reconcile()]


def test_nothing_differs_nothing_happens(world: World) -> None:
    world.release("1")
    world.release("2")
    stops = list(world.runtime.stops)
    assert kinds(world) == []
    assert world.runtime.stops == stops


def test_a_lost_slot_is_started_again(world: World) -> None:
    world.release("1")
    world.runtime.stop(Slot("iris", "blue", 0), 0)
    assert kinds(world) == [("slot", "iris", True)]
    world.check_truth()


def test_wrong_weights_are_put_right(world: World) -> None:
    world.release("1")
    world.gateway._state.write({"version": {"is": "x"}, "weights": {"iris": {"green": 100}}})
    assert kinds(world) == [("gateway", "iris", True)]
    world.check_truth()


def test_a_gateway_that_is_down_is_raised_and_repaired_when_it_returns(world: World) -> None:
    world.release("1")
    world.gateway.down = True
    assert kinds(world) == [("gateway", "", False)]
    world.gateway.down = False
    assert kinds(world) == []


def test_a_runtime_that_is_down_is_raised(world: World) -> None:
    world.release("1")
    world.runtime.down = True
    assert kinds(world) == [("runtime", "", False)]


def test_the_old_slot_stops_when_it_has_been_warm_long_enough(world: World) -> None:
    policy = QUICK.model_copy(update={"keep_warm_seconds": 100, "drain_seconds": 30})
    world.release("1", policy)
    world.release("2", policy)
    assert kinds(world) == []
    world.clock.sleep(101)
    world.gateway.stats["iris_blue"] = BackendStats(active=3)
    assert kinds(world) == []  # still answering
    world.gateway.stats["iris_blue"] = BackendStats(active=0)
    assert kinds(world) == [("slot", "iris", True)]
    assert world.runtime.stops == [("iris", "blue")]
    assert kinds(world) == []
    world.check_truth()


def test_the_drain_deadline_ends_the_wait(world: World) -> None:
    policy = QUICK.model_copy(update={"keep_warm_seconds": 0, "drain_seconds": 30})
    world.release("1", policy)
    world.release("2", policy)
    world.gateway.stats["iris_blue"] = BackendStats(active=3)
    assert kinds(world) == []
    world.clock.sleep(31)
    assert kinds(world) == [("slot", "iris", True)]
    world.check_truth()


def test_a_slot_of_a_running_rollout_is_left_to_its_driver(world: World) -> None:
    world.release("1")
    world.begin("2")
    world.until(Phase.VERIFYING)
    assert kinds(world) == []
    assert ("iris", "green") not in world.runtime.stops


def test_slots_that_nobody_knows_are_stopped(world: World) -> None:
    world.release("1")
    world.runtime.start(Slot("forgotten", "blue", 1), package("forgotten", "9"))
    assert kinds(world) == [("slot", "forgotten", True)]
    assert ("forgotten", "blue") in world.runtime.stops


def test_damaged_artefacts_are_not_brought_up(world: World) -> None:
    world.release("1")
    world.runtime.stop(Slot("iris", "blue", 0), 0)
    world.packager.damaged.add("1")
    assert kinds(world) == [("slot", "iris", False)]


def test_a_silent_driver_is_taken_over_and_a_busy_one_is_not(world: World) -> None:
    world.release("1")
    world.begin("2")
    assert world.releases.take_over(30) == []
    for _ in range(40):
        world.clock.sleep(31)
        world.releases.take_over(30)
        if world.parts.store.active("iris") is None:
            break
    assert world.parts.store.active("iris") is None
    world.check_truth()


@pytest.mark.parametrize("phase", [Phase.BAKING, Phase.PROMOTING])
def test_the_old_slot_is_not_stopped_while_its_successor_is_watched(world: World, phase: Phase) -> None:
    world.release("1")
    rollout = world.begin("2")
    world.until(phase)
    world.releases.advance("iris")
    assert kinds(world) == []
    assert world.runtime.stops == []
    assert world.finish(rollout).phase is Phase.LIVE
    world.check_truth()


def test_a_step_that_a_driver_is_about_to_make_is_no_difference(world: World) -> None:
    world.release("1")
    rollout = world.begin("2")
    world.until(Phase.SHIFTING)
    world.parts.store.shift(rollout, {"green": 100}, world.clock.now())
    assert kinds(world) == []
    assert world.gateway.weights("iris") == {"green": 100}


def test_models_that_were_never_released_are_routed(world: World) -> None:
    world.releases.know({"iris", "housing"})
    assert world.gateway._state.read()["weights"] == {"housing": {}, "iris": {}}
    assert kinds(world) == []
    world.release("1")
    world.releases.know({"iris", "housing"})
    world.check_truth()
