"""The survey sees every kind of difference, changes nothing, and is quiet while a rollout moves."""

from __future__ import annotations

import pytest

from contracts.world import World
from slipway.core.rollout_record import Phase
from slipway.ports import Readiness, Slot

pytestmark = pytest.mark.services


def kinds(world: World) -> list[str]:
    return [finding.kind for finding in world.releases.survey()]


def test_one_truth_gives_no_finding(world: World) -> None:
    world.release("1")
    world.release("2")
    assert kinds(world) == []


def test_a_moving_rollout_is_no_difference(world: World) -> None:
    world.release("1")
    world.begin("2")
    for phase in (Phase.VERIFYING, Phase.SHIFTING, Phase.BAKING):
        world.until(phase)
        world.releases.advance("iris")
        assert kinds(world) == [], phase


def test_a_rollout_that_nobody_drives_is_raised(world: World) -> None:
    world.release("1")
    world.begin("2")
    world.clock.sleep(300)
    assert kinds(world) == ["rollout"]


def test_every_kind_of_difference_is_seen_and_left(world: World) -> None:
    world.release("1")
    world.gateway._state.write({"version": {"is": "x"}, "weights": {"iris": {"green": 100}}})
    assert kinds(world) == ["gateway"]
    world.releases.reconcile()
    world.runtime.kill("iris", "blue")
    assert kinds(world) == kinds(world) == ["slot"]
    world.runtime.stop(Slot("iris", "blue", 0), 0)
    world.releases.reconcile()
    world.registry.aliases["iris", "champion"] = "7"
    assert kinds(world) == ["alias"]
    assert world.registry.aliases["iris", "champion"] == "7"
    assert [one.kind for one in world.releases.survey(registry=False)] == []


def test_a_port_that_another_process_answers_is_raised(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.release("1")
    monkeypatch.setattr(world.probe, "ready", lambda *_: Readiness(True, "ready", {"version": "0"}))
    (finding,) = world.releases.survey()
    assert "answered by version 0 instead of 1" in finding.detail


def test_the_alias_is_put_right_whoever_moved_it(world: World) -> None:
    world.release("1")
    for wrong in ("7", None):
        if wrong:
            world.registry.aliases["iris", "champion"] = wrong
        else:
            del world.registry.aliases["iris", "champion"]
        (finding,) = world.releases.reconcile()
        assert (finding.kind, finding.repaired) == ("alias", True)
        assert world.registry.aliases["iris", "champion"] == "1"
    assert world.releases.reconcile() == []


def test_the_alias_is_left_alone_between_the_two_steps_of_a_promotion(world: World) -> None:
    world.release("1")
    rollout = world.begin("2")
    world.until(Phase.PROMOTING)
    world.registry.aliases["iris", "champion"] = "2"  # moved, and the driver died before it saved
    assert world.releases.reconcile_registry() == []
    assert world.registry.aliases["iris", "champion"] == "2"
    assert world.finish(rollout).phase is Phase.LIVE
    assert world.releases.reconcile() == []


def test_a_registry_that_is_down_is_raised_and_traffic_goes_on(world: World) -> None:
    world.release("1")
    world.registry.down = True
    (finding,) = world.releases.reconcile()
    assert (finding.kind, finding.repaired) == ("alias", False)
    assert world.releases.reconcile(registry=False) == []
