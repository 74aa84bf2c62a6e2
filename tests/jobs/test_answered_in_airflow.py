"""Answers that come from Airflow's task, over real Postgres, with twins for the rest."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.world import QUICK, World
from slipway.core.rollout_record import Phase
from slipway.errors import RolloutError
from slipway.jobs.release import awaits_approval
from slipway.settings import Settings
from slipway.spec import RolloutPolicy, Step
from slipway.wiring.releasing import Releasing

pytestmark = pytest.mark.services

NO_TRAFFIC = QUICK.model_copy(
    update={"steps": (Step(weight=50, bake_seconds=1), Step(weight=100, bake_seconds=1)), "min_requests": 100}
)


@pytest.fixture
def slipway(world: World) -> Releasing:
    made = Releasing(Settings())
    made.releases = world.releases
    return made


def asked(slipway: Releasing, world: World, policy: RolloutPolicy) -> dict[str, Any]:
    """What `until_asked` gives to the task that asks, of a rollout beside version 1."""
    world.release("1")
    rollout = world.begin("2", policy)
    return slipway.roll_out("iris", "2", actor="airflow", reason="test", rollout_id=rollout.id, until_asked=True)


def answer(slipway: Releasing, reached: dict[str, Any], approved: bool = True) -> None:
    slipway.answer_approval(
        "iris", reached["rollout"], reached["asked_at"], approved, actor="Ada", reason="answered in Airflow"
    )


def test_a_persons_answer_is_carried_out(slipway: Releasing, world: World) -> None:
    reached = asked(slipway, world, QUICK.model_copy(update={"approval": "before_promotion"}))
    assert (reached["asked"], reached["phase"], reached["previous_version"]) == (True, "baking", "1")
    answer(slipway, reached)
    done = slipway.roll_out("iris", "2", actor="airflow", reason="test", rollout_id=reached["rollout"])
    assert (done["asked"], world.live()) == (False, "2")
    assert [row.actor for row in world.releases.history("iris") if row.event == "approved"] == ["Ada"]
    answer(slipway, reached)  # the task is cleared: nothing is asked any more
    world.check_truth()


def test_a_refusal_gives_the_traffic_back(slipway: Releasing, world: World) -> None:
    reached = asked(slipway, world, QUICK.model_copy(update={"approval": "before_shifting"}))
    answer(slipway, reached, approved=False)
    with pytest.raises(RolloutError, match="approval: rejected by an operator"):
        slipway.roll_out("iris", "2", actor="airflow", reason="test", rollout_id=reached["rollout"])
    assert world.live() == "1"
    world.check_truth()


@pytest.mark.parametrize("approval", ["none", "before_promotion"])
def test_an_old_answer_does_not_approve_a_later_question(slipway: Releasing, world: World, approval: str) -> None:
    policy = NO_TRAFFIC.model_copy(update={"on_inconclusive": "ask", "approval": approval})
    reached = asked(slipway, world, policy)
    assert reached["phase"] == "shifting"
    answer(slipway, reached)
    answer(slipway, reached)  # the same question again: it was answered
    later = slipway.roll_out(
        "iris", "2", actor="airflow", reason="test", rollout_id=reached["rollout"], until_asked=True
    )
    assert later["asked"]
    assert later["asked_at"] != reached["asked_at"]
    for approved in (True, False):  # the worker was killed, the task is retried with what it was given before
        answer(slipway, reached, approved)
        waiting = world.parts.store.rollout(reached["rollout"])
        assert awaits_approval(waiting)
        assert waiting.phase is not Phase.PROMOTING
    assert world.events().count("approved") == 1
    assert world.live() == "1"
