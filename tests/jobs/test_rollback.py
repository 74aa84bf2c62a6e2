"""Rollback, abort and promote over real Postgres, with twins for the rest."""

from __future__ import annotations

import contextlib

import pytest

from contracts.world import QUICK, World
from slipway.core.rollout_record import Phase
from slipway.errors import (
    ArtefactError,
    ConflictError,
    GatewayError,
    NotFoundError,
    RolloutError,
    RuntimeSlotError,
    SlipwayError,
)
from slipway.jobs.rollback import RolledBack

pytestmark = pytest.mark.services


def roll_back(world: World, to: str | None = None, dag_run: str | None = None) -> RolledBack:
    return world.releases.rollback("iris", to, actor="ops", reason="it looks wrong", dag_run=dag_run)


def released(world: World, *versions: str) -> None:
    for version in versions:
        world.release(version)


def test_the_former_version_returns_by_weights_alone(world: World) -> None:
    released(world, "1", "2")
    starts = list(world.runtime.starts)
    done = roll_back(world)
    assert (done.what, done.from_version, done.to_version, done.warm) == ("rolled_back", "2", "1", True)
    assert world.runtime.starts == starts
    assert world.gateway.weights("iris") == {"blue": 100}
    row = world.releases.history("iris", 1)[0]
    assert (row.event, row.version, row.actor, row.reason) == ("live", "1", "ops", "it looks wrong")
    assert world.registry.aliases[("iris", "champion")] == "1"
    world.check_truth()


def test_a_second_rollback_goes_further_back(world: World) -> None:
    released(world, "1", "2", "3")
    assert roll_back(world).to_version == "2"
    assert roll_back(world).to_version == "1"
    with pytest.raises(NotFoundError, match="kept versions: 2, 3"):
        roll_back(world)
    world.check_truth()


def test_a_cold_version_is_started_and_proven_first(world: World) -> None:
    released(world, "1", "2", "3")
    done = roll_back(world, "1")
    assert (done.to_version, done.warm) == ("1", False)
    assert world.runtime.starts[-1] == ("iris", "green", "1")
    world.check_truth()


def test_only_kept_versions_can_be_reached(world: World) -> None:
    released(world, "1", "2", "3", "4", "5")
    assert world.releases.kept_versions("iris") == ["4", "3", "2"]
    with pytest.raises(NotFoundError, match="version 1 is not kept for a rollback; kept versions: 4, 3, 2"):
        roll_back(world, "1")
    assert roll_back(world, "2").to_version == "2"


def test_damaged_artefacts_are_refused_before_any_traffic(world: World) -> None:
    released(world, "1", "2", "3")
    world.packager.damaged.add("1")
    world.gateway.published.clear()
    with pytest.raises(ArtefactError, match=r"iris:v1: its digest differs; other versions to roll back to: 2"):
        roll_back(world, "1")
    assert world.gateway.published == []
    assert world.live() == "3"
    world.packager.damaged.add("2")  # warm, but what cannot be started again must not become the only version
    with pytest.raises(ArtefactError):
        roll_back(world)
    assert world.live() == "3"
    world.check_truth()


def test_repeating_the_same_run_changes_nothing(world: World) -> None:
    released(world, "1", "2", "3")
    first = roll_back(world, dag_run="manual-1")
    again = roll_back(world, dag_run="manual-1")
    assert (again.to_version, again.rollout_id) == (first.to_version, first.rollout_id) == ("2", first.rollout_id)
    assert world.live() == "2"


def test_rolling_back_to_what_is_live_does_nothing(world: World) -> None:
    released(world, "1", "2")
    events = world.events()
    assert roll_back(world, "2").what == "nothing"
    assert world.events() == events


def test_without_a_former_version_there_is_nowhere_to_go(world: World) -> None:
    world.release("1")
    with pytest.raises(NotFoundError, match="no version before the live one"):
        roll_back(world)
    assert world.live() == "1"


def test_the_registry_may_be_down(world: World) -> None:
    released(world, "1", "2")
    world.registry.down = True
    done = roll_back(world)
    assert (done.what, done.alias_pending) == ("rolled_back", True)
    assert world.live() == "1"
    world.registry.down = False
    assert [finding.kind for finding in world.releases.reconcile()] == ["alias"]
    assert world.registry.aliases[("iris", "champion")] == "1"


def test_during_a_rollout_it_ends_the_rollout(world: World) -> None:
    world.release("1")
    world.begin("2", QUICK.model_copy(update={"bake_seconds": 1000}))
    world.until(Phase.BAKING)
    done = roll_back(world)
    assert (done.what, done.from_version, done.to_version) == ("aborted", "2", "1")
    assert world.live() == "1"
    world.check_truth()


def test_during_a_rollout_to_an_older_version(world: World) -> None:
    released(world, "1", "2")
    world.begin("3", QUICK.model_copy(update={"bake_seconds": 1000}))
    world.until(Phase.BAKING)
    done = roll_back(world, "1")
    assert (done.what, done.to_version) == ("rolled_back", "1")
    assert "aborted" in world.events()
    world.check_truth()


@pytest.mark.parametrize("phase", [Phase.PACKAGED, Phase.STARTING, Phase.VERIFYING, Phase.SHIFTING, Phase.BAKING])
def test_abort_at_any_phase_gives_the_traffic_back(world: World, phase: Phase) -> None:
    world.release("1")
    world.begin("2")
    world.until(phase)
    ended = world.releases.abort("iris", actor="ops", reason="changed my mind")
    assert ended.phase is Phase.ABORTED
    assert world.gateway.weights("iris") == {"blue": 100}
    assert world.live() == "1"
    assert [row.actor for row in world.releases.history("iris") if row.event == "abort_asked"] == ["ops"]
    world.check_truth()


def test_an_abort_before_the_start_leaves_the_warm_version_alone(world: World) -> None:
    released(world, "1", "2")
    world.begin("3")
    world.releases.abort("iris", actor="ops", reason="no")
    assert roll_back(world).warm
    world.check_truth()


def test_an_abort_while_promoting_comes_too_late(world: World) -> None:
    world.release("1")
    world.begin("2")
    world.until(Phase.PROMOTING)
    assert world.releases.abort("iris", actor="ops", reason="no").phase is Phase.LIVE
    world.check_truth()


def test_promote_skips_steps_and_bake(world: World) -> None:
    world.release("1")
    world.begin("2", QUICK.model_copy(update={"bake_seconds": 10_000, "deadline_seconds": 100_000}))
    world.until(Phase.BAKING)
    began = world.clock.time
    assert world.releases.promote("iris", actor="ops", reason="urgent").phase is Phase.LIVE
    assert (world.clock.time - began).total_seconds() < 10
    world.check_truth()


def test_promote_does_not_overrule_golden_rows(world: World) -> None:
    world.release("1")
    world.probe.wrong.add("2")
    world.begin("2", QUICK.model_copy(update={"ready_timeout_seconds": 3}))
    with pytest.raises(RolloutError, match="golden rows"):
        world.releases.promote("iris", actor="ops", reason="urgent")
    world.check_truth()


def test_nothing_to_abort_or_promote_is_said(world: World) -> None:
    world.release("1")
    for ask in (world.releases.abort, world.releases.promote):
        with pytest.raises(NotFoundError, match="no rollout of iris runs"):
            ask("iris", actor="ops", reason="?")


def test_a_rollback_that_only_ended_a_rollout_is_not_repeated_by_its_retry(world: World) -> None:
    released(world, "1", "2")
    rollout = world.begin("3")
    world.until(Phase.SHIFTING)
    # The task is killed after it has asked: the keeper ends the rollout.
    now = world.clock.now()
    assert world.parts.store.command(rollout, "abort", actor="ops", reason="r", now=now, dag_run="run-7")
    assert world.finish(rollout).phase is Phase.ABORTED
    again = roll_back(world, dag_run="run-7")
    assert (again.what, again.from_version, again.to_version) == ("aborted", "3", "2")
    assert world.live() == "2"
    assert roll_back(world, dag_run="run-8").to_version == "1"


def test_an_abort_that_was_asked_for_is_not_turned_into_a_promotion(world: World) -> None:
    released(world, "1")
    rollout = world.begin("2")
    world.until(Phase.SHIFTING)
    now = world.clock.now()
    assert world.parts.store.command(rollout, "abort", actor="ops", reason="r", now=now)
    with pytest.raises(RolloutError, match="did not go live"):
        world.releases.promote("iris", actor="hasty", reason="r")
    assert [event for event in world.events() if event.endswith("_asked")] == ["abort_asked"]
    assert world.live() == "1"


@pytest.mark.parametrize("what", ["abort", "bad checks"])
def test_traffic_goes_back_while_the_runtime_does_not_answer(world: World, what: str) -> None:
    released(world, "1")
    rollout = world.begin("2")
    world.until(Phase.SHIFTING)
    world.releases.advance("iris")
    assert world.gateway.weights("iris").get("green")
    world.runtime.down = True
    if what == "abort":
        world.parts.store.command(rollout, "abort", actor="ops", reason="r", now=world.clock.now())
    else:
        world.probe.wrong.add("2")
    for _ in range(10):
        with contextlib.suppress(RuntimeSlotError):
            world.releases.advance("iris")
        world.clock.sleep(0.5)
    assert world.gateway.weights("iris") == {"blue": 100}
    world.runtime.down = False
    assert world.finish(rollout).phase in (Phase.ABORTED, Phase.ROLLED_BACK)
    world.check_truth()


def test_a_warm_rollback_needs_no_runtime(world: World) -> None:
    released(world, "1", "2")
    world.runtime.down = True
    done = roll_back(world)
    assert (done.to_version, done.warm) == ("1", True)
    world.runtime.down = False
    world.check_truth()


class TestSplit:
    def split(self, world: World, **weights: int) -> dict[str, int]:
        return dict(world.releases.set_split("iris", weights, actor="ops", reason="experiment"))

    def test_a_split_lasts_and_ends(self, world: World) -> None:
        released(world, "1", "2")
        assert self.split(world, champion=70, challenger=30) == {"green": 70, "blue": 30}
        assert world.gateway.weights("iris") == {"green": 70, "blue": 30}
        world.clock.sleep(10_000)
        assert world.releases.reconcile() == []  # a slot with traffic is never stopped for its age
        assert self.split(world, champion=100) == {"green": 100}
        world.check_truth()

    def test_the_live_slot_stays_up_whatever_the_weights_say(self, world: World) -> None:
        released(world, "1", "2")
        world.parts.store.split("iris", {"blue": 100}, world.clock.now(), actor="ops", reason="by an older version")
        assert [finding.kind for finding in world.releases.reconcile()] == ["gateway"]
        world.clock.sleep(10_000)
        assert world.releases.reconcile() == []
        assert self.split(world, champion=100) == {"green": 100}
        world.check_truth()

    def test_a_slot_that_is_empty_and_has_traffic_is_found(self, world: World) -> None:
        released(world, "1", "2")
        world.runtime.stop(next(slot for slot in world.runtime.list() if slot.slot == "green"), 0.0)
        world.parts.store.assign("iris", "green", None, None, world.clock.now())
        assert [finding.detail for finding in world.releases.survey()] == [
            "slot green has 100 per cent of the traffic and no version"
        ]

    def test_a_split_is_in_the_ledger_even_if_the_gateway_was_away(self, world: World) -> None:
        released(world, "1", "2")
        world.gateway.down = True
        with pytest.raises(GatewayError):
            self.split(world, champion=70, challenger=30)
        world.gateway.down = False
        world.releases.reconcile()
        assert self.split(world, champion=70, challenger=30) == {"green": 70, "blue": 30}
        rows = [row for row in world.releases.history("iris") if row.detail.get("kind") == "split"]
        assert [row.detail["weights"] for row in rows] == [{"green": 70, "blue": 30}]
        world.check_truth()

    def test_a_rollback_ends_a_split(self, world: World) -> None:
        released(world, "1", "2", "3")
        self.split(world, champion=50, challenger=50)
        assert roll_back(world, "1").to_version == "1"
        assert world.gateway.weights("iris") == {"green": 100}
        world.check_truth()

    def test_a_release_waits_for_the_split_to_end(self, world: World) -> None:
        released(world, "1", "2")
        self.split(world, champion=50, challenger=50)
        with pytest.raises(ConflictError, match="A/B split"):
            world.begin("3")

    @pytest.mark.parametrize(
        "weights",
        [
            {"champion": 70},
            {"champion": 120, "challenger": -20},
            {"champion": 0, "challenger": 100},
            {"challenger": 100},
            {"blue": 100},
            {"champion": 70.5},
            {},
        ],
    )
    def test_what_is_no_split_is_refused(self, world: World, weights: dict[str, int]) -> None:
        released(world, "1", "2")
        with pytest.raises(SlipwayError):
            self.split(world, **weights)
        assert world.gateway.weights("iris") == {"green": 100}

    def test_refused_while_a_rollout_runs_and_without_a_challenger(self, world: World) -> None:
        with pytest.raises(NotFoundError, match="no version of iris is live"):
            self.split(world, champion=100)
        world.release("1")
        with pytest.raises(ConflictError, match="no challenger"):
            self.split(world, champion=50, challenger=50)
        world.begin("2")
        with pytest.raises(ConflictError, match="a rollout of iris version 2 runs"):
            self.split(world, champion=100)
