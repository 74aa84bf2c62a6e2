"""Releases over real Postgres, with twins for gateway, runtime and registry."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from contracts.twins import package
from contracts.world import QUICK, World
from slipway.core.rollout_record import Phase, Rollout
from slipway.core.routes import BackendStats, GatewayState, Route
from slipway.errors import ConflictError, GatewayError
from slipway.spec import ChecksPolicy, RolloutPolicy, Step

pytestmark = pytest.mark.services
CANARY = RolloutPolicy(
    steps=(Step(weight=5, bake_seconds=2), Step(weight=50, bake_seconds=2), Step(weight=100)),
    bake_seconds=2,
    min_requests=0,
    max_error_rate=0.01,
    deadline_seconds=60,
    checks=ChecksPolicy.off(),
)


def test_the_first_release_goes_live(world: World) -> None:
    ended = world.release("1")
    assert (ended.phase, ended.slot, ended.previous_version) == (Phase.LIVE, "blue", None)
    assert world.gateway.weights("iris") == {"blue": 100}
    assert world.registry.aliases == {("iris", "champion"): "1"}
    assert world.events() == ["started", "traffic", "live"]
    world.check_truth()


def test_the_second_release_takes_the_other_slot_and_keeps_the_first_warm(world: World) -> None:
    world.release("1")
    assert world.release("2").slot == "green"
    assert world.live() == "2"
    blue = next(slot for slot in world.parts.store.slots("iris") if slot.slot == "blue")
    assert blue.version == "1"
    assert blue.keep_warm_until is not None
    world.check_truth()
    world.release("3")
    assert world.runtime.starts == [("iris", "blue", "1"), ("iris", "green", "2"), ("iris", "blue", "3")]
    world.check_truth()


def test_steps_of_the_policy_are_walked_in_order(world: World) -> None:
    world.release("1")
    world.gateway.published.clear()
    world.release("2", CANARY)
    walked = [weights["iris"] for weights in world.gateway.published]
    distinct = [weights for i, weights in enumerate(walked) if i == 0 or weights != walked[i - 1]]
    assert distinct == [{"blue": 95, "green": 5}, {"blue": 50, "green": 50}, {"green": 100}]


def test_the_ledger_tells_when_the_weights_moved_however_long_it_took_to_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, publish = world.gateway.observe, world.gateway.publish
    moved: list[datetime] = []

    def observe_slowly() -> GatewayState:
        world.clock.sleep(3)
        return look()

    def publish_and_note(fleet: Sequence[Route]) -> None:
        before = world.gateway.weights("iris")
        publish(fleet)
        if world.gateway.weights("iris") != before:
            moved.append(world.clock.now())

    world.release("1")
    monkeypatch.setattr(world.gateway, "observe", observe_slowly)
    monkeypatch.setattr(world.gateway, "publish", publish_and_note)
    world.release("2", CANARY)
    world.releases.set_split("iris", {"champion": 90, "challenger": 10}, actor="tester", reason="compare")
    told = [row.at for row in reversed(world.releases.history("iris")) if row.event == "traffic"][1:]
    assert len(told) == len(moved) == 4
    assert all(timedelta() < then - at < timedelta(seconds=1) for at, then in zip(told, moved, strict=True))


def test_no_slot_gets_traffic_before_it_answers_its_golden_rows(world: World) -> None:
    world.release("1")
    world.probe.wrong.add("2")
    ended = world.release("2", QUICK.model_copy(update={"ready_timeout_seconds": 3}))
    assert ended.phase is Phase.ROLLED_BACK
    assert ended.failure == "golden rows: golden row 0 came out wrong"
    assert all("green" not in weights["iris"] for weights in world.gateway.published)
    assert world.live() == "1"
    world.check_truth()


def test_a_first_version_that_is_wrong_leaves_nothing_live(world: World) -> None:
    world.probe.wrong.add("1")
    assert world.release("1", QUICK.model_copy(update={"ready_timeout_seconds": 3})).phase is Phase.ROLLED_BACK
    assert world.gateway.weights("iris") == {}
    assert world.runtime.list() == []
    world.check_truth()


def test_a_slot_that_keeps_crashing_is_stopped_and_rolled_back(world: World) -> None:
    world.release("1")
    world.runtime.crashing.add("2")
    ended = world.release("2", QUICK.model_copy(update={"ready_timeout_seconds": 3}))
    assert ended.failure == "start: the slot does not run"
    assert ("iris", "green") in world.runtime.stops
    world.check_truth()


def test_damaged_artefacts_are_never_started(world: World) -> None:
    world.release("1")
    world.packager.damaged.add("2")
    ended = world.release("2")
    assert ended.phase is Phase.ROLLED_BACK
    assert ended.failure is not None
    assert ended.failure.startswith("artefacts: iris:v2")
    assert ("iris", "green", "2") not in world.runtime.starts
    world.check_truth()


def test_errors_in_traffic_roll_back_and_name_the_check(world: World) -> None:
    world.release("1")
    world.begin("2", CANARY)
    world.until(Phase.SHIFTING)
    world.releases.advance("iris")
    world.gateway.stats["iris_green"] = BackendStats(requests=200, errors=30, active=0)
    ended = world.finish(world.parts.store.active("iris") or pytest.fail("no rollout"))
    assert ended.phase is Phase.ROLLED_BACK
    assert ended.failure == "error_rate: 30 of 200 requests failed, the limit is 1.00%"
    assert world.gateway.weights("iris") == {"blue": 100}
    assert max(weights["iris"].get("green", 0) for weights in world.gateway.published) == 5
    world.check_truth()


def test_errors_before_the_step_are_not_held_against_it(world: World) -> None:
    world.release("1")
    world.gateway.stats["iris_green"] = BackendStats(requests=1000, errors=900)
    assert world.release("2", CANARY).phase is Phase.LIVE


def test_a_new_version_that_dies_while_it_is_watched_is_rolled_back(world: World) -> None:
    world.release("1")
    world.begin("2", CANARY)
    world.until(Phase.SHIFTING)
    world.releases.advance("iris")
    world.runtime.kill("iris", "green")
    ended = world.finish(world.parts.store.active("iris") or pytest.fail("no rollout"))
    assert ended.failure == "readiness: the slot does not run"
    world.check_truth()


@pytest.mark.parametrize("blind", ["too few requests", "the slot cannot be asked"])
def test_what_is_not_known_never_promotes(world: World, blind: str) -> None:
    world.release("1")
    policy = CANARY.model_copy(update={"min_requests": 100 if blind == "too few requests" else 0})
    world.begin("2", policy)
    world.until(Phase.SHIFTING)
    world.releases.advance("iris")
    world.probe.silent = blind == "the slot cannot be asked"
    ended = world.finish(world.parts.store.active("iris") or pytest.fail("no rollout"))
    assert ended.phase is Phase.ROLLED_BACK
    assert "at the deadline" in (ended.failure or "")
    assert world.live() == "1"
    world.check_truth()


def test_held_on_inconclusive_until_an_operator_promotes(world: World) -> None:
    world.release("1")
    world.begin("2", CANARY.model_copy(update={"min_requests": 100, "on_inconclusive": "hold"}))
    world.until(Phase.SHIFTING)
    for _ in range(10):
        world.releases.advance("iris")
        world.clock.sleep(30)
    held = world.releases.advance("iris")
    assert held is not None
    assert held.waiting is not None
    assert held.waiting.startswith("held, error_rate")
    assert world.releases.promote("iris", actor="ops", reason="looked at it").phase is Phase.LIVE
    assert "promote_asked" in world.events()
    world.check_truth()


def test_begin_is_idempotent_and_refuses_a_second_version_once_there_is_traffic(world: World) -> None:
    first = world.begin("1")
    assert world.begin("1").id == first.id
    world.until(Phase.SHIFTING)
    with pytest.raises(ConflictError, match="version 1 is shifting"):
        world.begin("2")
    world.finish(first)
    assert world.begin("1").id == first.id  # live already: nothing happens
    assert world.events().count("live") == 1


@pytest.mark.parametrize("phase", [Phase.PACKAGED, Phase.STARTING, Phase.VERIFYING])
def test_a_newer_release_supersedes_one_without_traffic(world: World, phase: Phase) -> None:
    world.release("1")
    first = world.begin("2")
    world.until(phase)
    second = world.begin("3")
    assert (second.version, second.phase) == ("3", Phase.PACKAGED)
    assert world.parts.store.rollout(first.id).phase is Phase.ABORTED
    asked = next(row for row in world.releases.history("iris") if row.event == "abort_asked")
    assert asked.reason == "superseded by version 3"
    assert world.finish(second).phase is Phase.LIVE
    assert world.live() == "3"
    world.check_truth()


@pytest.mark.parametrize("begun_by_the_run", [True, False])
def test_a_dag_run_that_is_tried_again_releases_nothing_twice(world: World, begun_by_the_run: bool) -> None:
    """Its task was killed; the keeper finished the rollout and an operator rolled it back before the next try."""

    def run() -> Rollout:
        made = package("iris", "2")
        return world.releases.begin(made, QUICK, actor="airflow", reason="a release", dag_run="run-1")

    world.release("1")
    first = run() if begun_by_the_run else world.begin("2")
    assert run().id == first.id
    assert world.finish(first).phase is Phase.LIVE
    world.releases.rollback("iris", actor="ops", reason="it looks wrong")
    again = run()
    assert (again.id, again.phase) == (first.id, Phase.LIVE)
    assert world.live() == "1"
    assert world.parts.store.active("iris") is None


def test_a_superseded_dag_run_does_not_come_back(world: World) -> None:
    world.release("1")
    first = world.releases.begin(package("iris", "2"), QUICK, actor="airflow", reason="old", dag_run="run-1")
    second = world.begin("3")
    again = world.releases.begin(package("iris", "2"), QUICK, actor="airflow", reason="old", dag_run="run-1")
    assert (again.id, again.phase) == (first.id, Phase.ABORTED)
    assert world.finish(second).phase is Phase.LIVE


def test_an_advance_without_a_rollout_does_nothing(world: World) -> None:
    assert world.releases.advance("iris") is None


def test_the_gateway_away_at_the_shift_is_waited_for(world: World) -> None:
    world.release("1")
    rollout = world.begin("2")
    world.until(Phase.SHIFTING)
    world.gateway.down = True
    with pytest.raises(GatewayError):
        world.releases.advance("iris")
    assert world.parts.store.active("iris") is not None
    world.gateway.down = False
    assert world.finish(rollout).phase is Phase.LIVE
    world.check_truth()


def test_a_gateway_that_takes_no_routes_ends_in_a_rollback(world: World) -> None:
    world.release("1")
    rollout = world.begin("2")
    world.until(Phase.SHIFTING)
    world.gateway.deaf = True
    for progress in world.releases.drive(rollout):
        rollout = progress.rollout
        if rollout.phase is Phase.ROLLING_BACK:
            world.gateway.deaf = False
    assert (rollout.phase, rollout.failure) == (
        Phase.ROLLED_BACK,
        "traffic: the gateway did not take the weights in time",
    )
    world.check_truth()


def test_a_registry_that_is_down_does_not_stop_the_release(world: World) -> None:
    world.registry.down = True
    world.release("1")
    assert world.releases.status("iris")[0].alias_pending
    assert [finding.repaired for finding in world.releases.reconcile()] == [False]
    world.registry.down = False
    assert [(finding.kind, finding.repaired) for finding in world.releases.reconcile()] == [("alias", True)]
    assert world.registry.aliases == {("iris", "champion"): "1"}
    assert world.releases.reconcile() == []


def test_models_do_not_disturb_each_other(world: World) -> None:
    world.release("1", model="iris")
    world.release("1", model="housing")
    world.release("2", model="iris")
    ports = [slot.port for slot in world.parts.store.slots()]
    assert len(set(ports)) == 4
    world.check_truth("iris")
    world.check_truth("housing")


def test_ports_in_use_are_skipped(world: World) -> None:
    world.probe.taken_ports = {22300, 22302}
    world.release("1")
    assert sorted(slot.port for slot in world.parts.store.slots()) == [22301, 22303]


def test_an_empty_slot_leaves_a_port_that_somebody_took_meanwhile(world: World) -> None:
    world.release("1")
    assert {slot.slot: slot.port for slot in world.parts.store.slots()} == {"blue": 22300, "green": 22301}
    world.probe.taken_ports = {22300, 22301}  # its own bento holds the first
    world.release("2")
    assert {slot.slot: slot.port for slot in world.parts.store.slots()} == {"blue": 22300, "green": 22302}
    world.check_truth()


def test_the_ledger_knows_what_stands_behind_a_version(world: World) -> None:
    world.release("1")
    row = world.releases.live_at("iris", world.clock.now())
    assert row is not None
    assert (row.version, row.slot, row.actor) == ("1", "blue", "tester")
    made = package("iris", "1")
    assert row.detail["digest"] == made.digest
    assert row.detail["dataset_sha256"] == made.dataset_sha256
    assert row.detail["evidence"] == {"gate": "won"}
    assert world.releases.live_at("iris", row.at.replace(year=2020)) is None


def test_drive_tells_its_phases_in_order(world: World) -> None:
    phases = [progress.rollout.phase for progress in world.releases.drive(world.begin("1"))]
    assert [phase for i, phase in enumerate(phases) if i == 0 or phase is not phases[i - 1]] == [
        Phase.STARTING,
        Phase.VERIFYING,
        Phase.REPLAYING,
        Phase.SHADOWING,
        Phase.SHIFTING,
        Phase.BAKING,
        Phase.PROMOTING,
        Phase.LIVE,
    ]


def test_two_drivers_at_once_make_one_release(world: World) -> None:
    world.release("1")
    rollout = world.begin("2", CANARY)
    ends: list[Phase] = []
    threads = [threading.Thread(target=lambda: ends.append(world.finish(rollout).phase)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [Phase.LIVE] * 3
    assert world.events().count("live") == 2
    assert world.runtime.starts == [("iris", "blue", "1"), ("iris", "green", "2")]
    world.check_truth()
