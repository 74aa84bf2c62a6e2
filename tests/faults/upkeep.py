"""Rounds without a rollout: the keeper is killed between an act of its own and what it saves of it."""

from __future__ import annotations

import time
from datetime import timedelta

from faults.judging import MODEL, Before, Round, Story, broken
from faults.whole_stack import FaultStack, until
from slipway.core.rollout_record import Rollout
from slipway.jobs.release import CHAMPION

__all__ = ["UPKEEP", "conclude", "play_upkeep"]


def _let_the_warm_slot_go(stack: FaultStack) -> None:
    store, now = stack.slipway.store, stack.slipway.releases.parts.clock.now()
    live = store.traffic_of(MODEL).live_slot
    warm = next(slot.slot for slot in store.slots(MODEL) if slot.version and slot.slot != live)
    store.keep_warm(MODEL, warm, now, now - timedelta(seconds=1))


def _move_the_alias_away(stack: FaultStack) -> None:
    live = stack.slipway.releases.live(MODEL).version
    other = next(one.version for one in stack.slipway.mlflow.versions(MODEL) if one.version != live)
    stack.slipway.mlflow.set_alias(MODEL, CHAMPION, other)


def _versions_held(stack: FaultStack) -> int:
    return sum(slot.version is not None for slot in stack.slipway.store.slots(MODEL))


# The keeper's fault points, and what makes it act.
UPKEEP = {"taken_down": _let_the_warm_slot_go, "realiased": _move_the_alias_away}


def conclude(stack: FaultStack, outcome: Round, story: Story, before: Before, rollout: Rollout | None) -> None:
    """Wait until all agrees, let clients see that for a second, and look for what a round must not leave."""
    stack.settle()
    story.live, story.settled = stack.slipway.releases.live(MODEL).version, time.time()
    time.sleep(1.0)
    outcome.problems += broken(stack.slipway.releases, before, rollout)
    outcome.problems += [f"orphan: {line}" for line in stack.orphans()]


def play_upkeep(stack: FaultStack, cell: str, point: str, other_version: str) -> tuple[Round, Story]:
    """One round of `keeper after POINT`: provoke the act, and see that the next keeper finishes it."""
    releases, outcome = stack.slipway.releases, Round(cell, ended="kept")
    if _versions_held(stack) < 2:
        stack.cli("release", MODEL, "--version", other_version)  # so that there is a warm slot
        stack.settle()
    story = Story(began=time.time())
    before = Before.look(releases, releases.parts.clock.now())
    order = f"keeper@{point}"
    try:
        stack.order(order, "kill")
        UPKEEP[point](stack)
        until(lambda: stack.hit(order), 60, f"the keeper to come to {point}")
        if point == "taken_down":  # for the survey a slot on its way out is no difference
            until(lambda: _versions_held(stack) == 1, 60, "the slot that nobody needs to be empty")
        conclude(stack, outcome, story, before, None)
    except TimeoutError as error:
        outcome.problems.append(str(error))
    finally:
        stack.clear_orders()
    story.over = time.time()
    return outcome, story
