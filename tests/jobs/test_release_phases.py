"""Replay, shadow, approval and A/B results over real Postgres, with twins for the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from contracts.traffic_twin import TrafficTwin
from contracts.world import QUICK, World
from slipway.core.checks import Pair
from slipway.core.rollout_record import Phase, Rollout
from slipway.core.slot_metrics import SlotMetrics
from slipway.errors import ConflictError, NotFoundError
from slipway.jobs.parts import LoggedRequest
from slipway.jobs.release import awaits_approval

pytestmark = pytest.mark.services
REPLAY = QUICK.model_copy(update={"replay_requests": 50})
SHADOW = QUICK.model_copy(update={"shadow_percent": 20, "shadow_seconds": 10.0, "min_requests": 100})


def logged(count: int, label: str | None = None) -> list[LoggedRequest]:
    row = {"petal_length": 1.4}
    return [LoggedRequest(f"request-{n}", (row,), ("setosa",), (label,), 1.0) for n in range(count)]


def shares(world: World, version: str, share: float, other: str = "virginica") -> None:
    """Let `version` answer this share of the replayed rows differently."""
    count = iter(range(10**6))

    def model(asked: str, row: Mapping[str, object]) -> str:
        return other if asked == version and next(count) % 10 < share * 10 else "setosa"

    world.probe.model = model


# --- replay -----------------------------------------------------------------------------------------------


def test_a_replay_that_agrees_goes_on_and_leaves_its_report(world: World) -> None:
    world.release("1")
    world.answers.requests = logged(80)
    ended = world.release("2", REPLAY)
    assert ended.phase is Phase.LIVE
    assert ended.replay is not None
    assert ended.replay.evidence["rows"] == 50
    report = json.loads(world.answers.reports["replay.json"])
    assert (report["verdict"], report["previous_version"], len(report["answers"])) == ("pass", "1", 50)
    assert "<h1>iris: version 2 beside version 1</h1>" in world.answers.reports["replay.html"]
    assert {version for version, _ in world.probe.predicted} == {"1", "2"}


def test_a_replay_that_disagrees_is_rolled_back_before_any_traffic(world: World) -> None:
    world.release("1")
    world.answers.requests = logged(50)
    shares(world, "2", 0.6)
    world.gateway.published.clear()
    ended = world.release("2", REPLAY)
    assert (ended.phase, world.live()) == (Phase.ROLLED_BACK, "1")
    assert (ended.failure or "").startswith("replay: predictions: 30 of 50 rows are predicted differently")
    assert all("green" not in weights["iris"] for weights in world.gateway.published)
    world.check_truth()


def test_older_requests_follow_where_luck_could_decide(world: World) -> None:
    world.release("1")
    world.answers.requests = logged(300)
    shares(world, "2", 0.2)  # the limit is a tenth
    ended = world.release("2", REPLAY)
    assert (ended.failure or "").startswith("replay: predictions: 40 of 200 rows are predicted differently")
    asked = [request for version, request in world.probe.predicted if version == "2"]
    assert sorted(asked) == sorted(f"request-{n}" for n in range(100, 300))
    count = iter(range(10**6))
    world.probe.model = lambda version, _: "virginica" if version == "3" and next(count) < 6 else "setosa"
    ended = world.release("3", REPLAY)
    assert (ended.phase, ended.replay and ended.replay.evidence["rows"]) == (Phase.LIVE, 100)


def test_a_replay_that_cannot_tell_after_all_is_no_success(world: World) -> None:
    world.release("1")
    world.answers.requests = logged(50)
    shares(world, "2", 0.2)
    ended = world.release("2", REPLAY)
    assert (ended.failure or "").startswith("inconclusive: replay: predictions: 10 of 50 rows are predicted")


def test_labels_decide_a_replay_that_disagrees(world: World) -> None:
    world.release("1")
    world.answers.requests = logged(60, label="virginica")  # the old answers were wrong
    shares(world, "2", 1.0)
    assert world.release("2", REPLAY.model_copy(update={"replay_requests": 60})).phase is Phase.LIVE
    world.answers.requests = logged(60, label="setosa")  # the version in force answers right, the new one wrong
    shares(world, "3", 1.0)
    ended = world.release("3", REPLAY.model_copy(update={"replay_requests": 60}))
    assert (ended.failure or "").startswith("replay: predictions: worse on labels by +1.000")


def test_nothing_logged_is_nothing_to_replay(world: World) -> None:
    world.release("1")
    assert world.release("2", REPLAY).phase is Phase.LIVE


def test_a_log_that_cannot_be_replayed_is_no_success(world: World) -> None:
    world.release("1")
    world.answers.broken = True
    ended = world.release("2", REPLAY)
    assert (ended.phase, ended.failure) == (Phase.ROLLED_BACK, "replay: it could not be made (OSError)")


# --- shadow -----------------------------------------------------------------------------------------------


def until_shadow(world: World) -> Rollout:
    world.release("1")
    world.begin("2", SHADOW)
    world.until(Phase.SHADOWING)
    world.releases.advance("iris")
    assert world.gateway.observe().shadows == {"iris": {"green": 20}}
    assert world.gateway.weights("iris") == {"blue": 100}
    return world.parts.store.active("iris") or pytest.fail("no rollout")


def test_a_shadow_that_agrees_gets_traffic_and_is_no_longer_mirrored(world: World) -> None:
    rollout = until_shadow(world)
    world.answers.mirrored = [Pair("setosa", "setosa")] * 200
    world.probe.counts["2"] = SlotMetrics(shadow_requests=200)
    ended = TrafficTwin(world).drive(rollout, until=lambda r: r.phase is Phase.SHIFTING and r.confirmed_at is not None)
    assert ended.phase is Phase.SHIFTING
    assert world.gateway.observe().shadows == {}


@pytest.mark.parametrize("wrong", ["predictions", "errors", "refusals"])
def test_a_shadow_that_fails_never_gets_traffic(world: World, wrong: str) -> None:
    rollout = until_shadow(world)
    world.answers.mirrored = [Pair("setosa", "virginica" if wrong == "predictions" else "setosa")] * 200
    failed = {"errors": {"shadow_errors": 100}, "refusals": {"shadow_refused": 100}}.get(wrong, {})
    world.probe.counts["2"] = SlotMetrics(shadow_requests=200, **failed)
    world.gateway.published.clear()
    ended = TrafficTwin(world).drive(rollout)
    assert ended.phase is Phase.ROLLED_BACK
    check = {"predictions": "shadow", "errors": "shadow_errors", "refusals": "refusals"}[wrong]
    assert (ended.failure or "").startswith(f"{check}: ")
    assert all("green" not in weights["iris"] for weights in world.gateway.published)
    assert world.gateway.observe().shadows == {}
    world.check_truth()


def test_what_clients_do_wrong_fails_no_shadow(world: World) -> None:
    rollout = until_shadow(world)
    world.answers.mirrored = [Pair("setosa", "setosa")] * 200
    world.probe.counts["2"] = SlotMetrics(shadow_requests=1800, shadow_refused=200)
    simulated = TrafficTwin(world, invalid=0.1)
    ended = simulated.drive(rollout, until=lambda r: r.phase is Phase.SHIFTING)
    assert ended.phase is Phase.SHIFTING


def test_a_shadow_without_traffic_is_inconclusive(world: World) -> None:
    rollout = until_shadow(world)
    ended = TrafficTwin(world, rate=0.0).drive(rollout, step=10.0)
    assert (ended.failure or "").startswith("inconclusive at the deadline: shadow")


# --- approval ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("approval", "phase", "weights"),
    [("before_shifting", Phase.SHADOWING, {"blue": 100}), ("before_promotion", Phase.BAKING, {"green": 100})],
)
def test_a_rollout_waits_for_a_person_and_goes_on(
    world: World, approval: str, phase: Phase, weights: dict[str, int]
) -> None:
    waiting = until_asked(world, approval)
    assert waiting.phase is phase
    assert world.gateway.weights("iris") == weights
    for _ in range(5):
        world.clock.sleep(1000)  # far beyond the deadline: the time of waiting does not count
        progress = world.releases.advance("iris")
        assert progress is not None
        assert (progress.waiting or "").startswith("waiting for approval")
    world.releases.approve("iris", actor="Ada", reason="looks good")
    assert world.finish(waiting).phase is Phase.LIVE
    assert [row.actor for row in world.releases.history("iris") if row.event == "approved"] == ["Ada"]
    world.check_truth()


def until_asked(world: World, approval: str) -> Rollout:
    world.release("1")
    rollout = world.begin("2", QUICK.model_copy(update={"approval": approval}))
    for progress in world.releases.drive(rollout):
        if awaits_approval(progress.rollout):
            return progress.rollout
    raise AssertionError("nobody was asked")


@pytest.mark.parametrize("approval", ["before_shifting", "before_promotion"])
def test_a_breach_while_it_waits_rolls_back_by_the_keeper_alone(world: World, approval: str) -> None:
    waiting = until_asked(world, approval)
    world.probe.wrong.add("2")
    world.clock.sleep(1.5)
    taken: set[str] = set()
    found = world.releases.take_over(30.0, taken)
    ended = world.parts.store.rollout(waiting.id)
    assert (ended.phase, ended.failure) == (Phase.ROLLED_BACK, "readiness: golden row 0 came out wrong")
    assert [finding.repaired for finding in found] == [True]
    assert world.gateway.weights("iris") == {"blue": 100}
    world.check_truth()


def test_a_rejected_rollout_gives_the_traffic_back(world: World) -> None:
    until_asked(world, "before_promotion")
    ended = world.releases.reject("iris", actor="Ada", reason="not today")
    assert (ended.phase, ended.failure) == (Phase.ABORTED, "approval: rejected by an operator")
    assert world.live() == "1"
    with pytest.raises(NotFoundError):
        world.releases.approve("iris", actor="Ada", reason="changed my mind")
    world.check_truth()


def test_nobody_answers_in_time(world: World) -> None:
    waiting = until_asked(world, "before_shifting")
    world.clock.sleep(86_401)
    ended = world.finish(waiting)
    assert (ended.phase, ended.failure) == (Phase.ROLLED_BACK, "approval: nobody answered in time")


def test_only_a_rollout_that_asks_can_be_approved(world: World) -> None:
    world.release("1")
    world.begin("2")
    with pytest.raises(ConflictError, match="asks nobody"):
        world.releases.approve("iris", actor="Ada", reason="early")


def test_an_inconclusive_end_asks_when_the_policy_says_so(world: World) -> None:
    world.release("1")
    policy = QUICK.model_copy(update={"min_requests": 100, "on_inconclusive": "ask"})
    rollout = world.begin("2", policy)
    asked = 0
    for progress in world.releases.drive(rollout, poll_seconds=5):
        if awaits_approval(progress.rollout):
            asked += 1
            world.releases.approve("iris", actor="Ada", reason="no traffic at night")
        rollout = progress.rollout
    assert (rollout.phase, asked >= 1) == (Phase.LIVE, True)
    world.check_truth()


# --- the keeper --------------------------------------------------------------------------------------------


def test_the_keeper_drives_on_what_it_took_over(world: World) -> None:
    world.release("1")
    rollout = world.begin("2", QUICK.model_copy(update={"bake_seconds": 30.0}))
    taken: set[str] = set()
    assert world.releases.take_over(30.0, taken) == []
    world.clock.sleep(31)
    world.releases.take_over(30.0, taken)
    assert (world.parts.store.rollout(rollout.id).phase, taken) == (Phase.STARTING, {rollout.id})
    began = world.clock.now()
    while not world.parts.store.rollout(rollout.id).ended:
        world.clock.sleep(1.5)
        world.releases.take_over(30.0, taken)
    assert (world.clock.now() - began).total_seconds() < 40
    assert world.live() == "2"
    world.releases.take_over(30.0, taken)
    assert taken == set()
    world.check_truth()


# --- A/B ---------------------------------------------------------------------------------------------------


def test_a_split_shows_each_sides_results_since_it_was_set(world: World) -> None:
    world.release("1")
    world.release("2")
    simulated = TrafficTwin(world)
    simulated.pass_time(5)
    world.releases.set_split("iris", {"champion": 70, "challenger": 30}, actor="ops", reason="experiment")
    before = dict(simulated.met)
    world.answers.by_version.clear()
    simulated.pass_time(10)
    world.answers.by_version["1"] = replace(
        world.answers.by_version["1"], labelled=[("setosa", "setosa")] * 3 + [("setosa", "virginica")]
    )
    sides = world.releases.sides("iris")
    assert {role: (side.version, side.slot, side.weight) for role, side in sides.items()} == {
        "champion": ("2", "green", 70),
        "challenger": ("1", "blue", 30),
    }
    assert sides["champion"].requests == simulated.met["2"] - before["2"]
    assert sides["challenger"].requests == simulated.met["1"] - before.get("1", 0)
    assert sides["challenger"].quality == {"accuracy": 0.75}
    assert (sides["champion"].quality, sides["champion"].errors) == (None, 0)
