"""What an operator is told who wants to stop a rollout that goes live meanwhile, and who promotes one."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

import slipway.wiring
from contracts.world import QUICK, World
from slipway.cli import root
from slipway.core.rollout_record import Phase
from slipway.errors import ConflictError
from slipway.settings import Settings
from slipway.wiring import Wiring

pytestmark = pytest.mark.services


@pytest.fixture
def wired(world: World, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    made = Wiring(Settings())
    made.releases, made.database = world.releases, world.database
    monkeypatch.setattr(slipway.wiring, "wiring", lambda: made)
    return made


def told(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(root, list(arguments))
    return done.exit_code, done.output.strip() or str(done.exception)


def late(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else approves, and the rollout goes live, just before the command reaches it."""
    command = world.parts.store.command

    def after_the_others(rollout: Any, *arguments: Any, **named: Any) -> bool:
        if rollout.approval_asked_at is not None:
            world.releases.approve("iris", actor="Ada", reason="fine")
        world.finish(rollout)
        return command(rollout, *arguments, **named)

    monkeypatch.setattr(world.parts.store, "command", after_the_others)


@pytest.mark.parametrize(("name", "asked"), [("abort", "abort"), ("reject", "refusal")])
def test_what_came_too_late_is_an_error_and_no_deed_in_the_audit(
    world: World, wired: Wiring, monkeypatch: pytest.MonkeyPatch, name: str, asked: str
) -> None:
    world.release("1")
    world.begin("2", QUICK.model_copy(update={"approval": "before_promotion" if name == "reject" else "none"}))
    world.until(Phase.BAKING)
    while name == "reject" and "approval_asked" not in world.events():
        world.releases.advance("iris")
        world.clock.sleep(0.2)
    late(world, monkeypatch)
    act = getattr(wired, name)
    with pytest.raises(ConflictError) as error:
        wired.noted(name, "iris", {}, lambda: act("iris", actor="ops", reason="no"), actor="ops", via="api")
    expected = f"iris version 2 went live before the {asked} came; `slipway rollback iris` brings the former one back"
    assert str(error.value) == expected
    assert [row["outcome"] for row in wired.recent_actions("iris")] == ["refused"]
    assert world.live() == "2"


def test_the_command_line_says_that_an_abort_came_too_late(world: World, wired: Wiring) -> None:
    world.release("1")
    world.begin("2")
    world.until(Phase.PROMOTING)
    code, output = told("abort", "iris")
    assert code == 1
    assert "iris version 2 went live before the abort came" in output


def test_the_command_line_says_what_became_of_a_promotion(world: World, wired: Wiring) -> None:
    world.release("1")
    bakes = QUICK.model_copy(update={"bake_seconds": 1000.0})
    world.begin("2", bakes)
    world.until(Phase.BAKING)
    assert told("promote", "iris") == (0, "iris version 2 is live in slot green")
    world.begin("3", bakes)
    world.until(Phase.BAKING)
    world.probe.wrong.add("3")
    code, output = told("promote", "iris")
    assert code == 1
    assert "iris version 3 did not go live: readiness: golden row 0 came out wrong" in output
