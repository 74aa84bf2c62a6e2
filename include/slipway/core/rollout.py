"""The rollout as a pure state machine: `decide(rollout, observation, now)` says what to do next.

    packaged → starting → verifying → replaying → shadowing → shifting(step i) → baking → promoting → live
                                any failed check → rolling_back → rolled_back;   operator → aborted

The caller does one action, reads its effect back, saves, and asks again. Every action may be done twice, so
a driver that is killed anywhere leaves a rollout that the next driver finishes or rolls back. Where a person has
to approve, the rollout waits in `shadowing` or `baking`, and a check that fails meanwhile rolls it back.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from slipway.core.checks import judge
from slipway.core.rollout_record import (
    PREPARING,
    Action,
    Ask,
    Finish,
    Go,
    Observation,
    Phase,
    Promote,
    Replay,
    Rollout,
    Shift,
    Start,
    Stop,
    Wait,
)
from slipway.core.routes import LONGEST_PAUSE_SECONDS, REPEATED_SECONDS, SlotName
from slipway.core.verdict import Verdict

__all__ = ["decide", "mirrors", "target_shadow", "target_weights"]

_SHIFT_SECONDS = 30.0
# With margin, since the pauses are drawn.
_RETRIES_SECONDS = REPEATED_SECONDS + 5.0
_RETRY_SECONDS = LONGEST_PAUSE_SECONDS + 0.5
ABORTED_BY_OPERATOR = "aborted by an operator"
REJECTED = "approval: rejected by an operator"
_OPERATORS = {"abort": ABORTED_BY_OPERATOR, "reject": REJECTED}


def target_weights(rollout: Rollout) -> dict[SlotName, int]:
    """Weights by slot that the rollout's phase asks for; slots without traffic are left out.

    A first release has no old slot to share with: its first step is all of the traffic.
    """
    new, old = rollout.slot, rollout.previous_slot
    if rollout.phase is Phase.SHIFTING:
        share = rollout.policy.steps[rollout.step].weight if old else 100
    elif rollout.phase in (Phase.BAKING, Phase.PROMOTING, Phase.LIVE):
        share = 100
    else:
        share = 0
    weights = {new: share, old: 100 - share} if old else {new: share}
    return {slot: weight for slot, weight in weights.items() if weight}


def mirrors(rollout: Rollout) -> bool:
    """Whether the rollout has a shadow phase: a share to mirror, and an old slot whose traffic it is."""
    return rollout.policy.shadow_percent > 0 and rollout.previous_slot is not None


def target_shadow(rollout: Rollout) -> int:
    """Per cent of the traffic that the rollout's phase wants mirrored to the new slot."""
    return rollout.policy.shadow_percent if rollout.phase is Phase.SHADOWING and mirrors(rollout) else 0


def decide(rollout: Rollout, seen: Observation, now: datetime) -> Action:
    """The one next action. Pure: the same arguments always give the same action."""
    if rollout.ended:
        return Wait(f"the rollout has ended: {rollout.phase}")
    if rollout.phase is Phase.ROLLING_BACK:
        return _roll_back(rollout, seen, now)
    if rollout.phase is Phase.PROMOTING:
        return Promote() if _in_force(rollout, seen) else _shift(rollout)
    if rollout.command in _OPERATORS:
        return Go(Phase.ROLLING_BACK, failure=_OPERATORS[rollout.command])
    if rollout.phase in PREPARING:
        return _prepare(rollout, seen, now)
    return _watch(rollout, seen, now)


def _shift(rollout: Rollout) -> Shift:
    return Shift(target_weights(rollout), target_shadow(rollout))


def _in_force(rollout: Rollout, seen: Observation) -> bool:
    if seen.weights is None or dict(seen.weights) != target_weights(rollout):
        return False
    return seen.shadow == target_shadow(rollout)


def _prepare(rollout: Rollout, seen: Observation, now: datetime) -> Action:
    if rollout.phase is Phase.PACKAGED:
        return Go(Phase.STARTING)
    late = now >= min(rollout.phase_since + timedelta(seconds=rollout.policy.ready_timeout_seconds), rollout.deadline)
    if rollout.phase is Phase.STARTING:
        if seen.running:
            return Go(Phase.VERIFYING)
        return Go(Phase.ROLLING_BACK, failure="start: the slot does not run") if late else Start()
    if rollout.phase is Phase.VERIFYING:
        if seen.ready:
            return Go(Phase.REPLAYING)
        if late:
            return Go(Phase.ROLLING_BACK, failure=f"golden rows: {seen.ready_detail or 'no answer'}")
        # Starting what runs already changes nothing, and where nobody knows it tells what is wrong with the runtime.
        return Wait(seen.ready_detail or "the slot is not ready yet") if seen.running else Start()
    return _replay(rollout, now, late)


def _replay(rollout: Rollout, now: datetime, late: bool) -> Action:
    """Nothing logged is nothing to replay: the checks in traffic stay. Too little to tell is left to the policy."""
    if rollout.policy.replay_requests == 0 or rollout.previous_slot is None:
        return Go(Phase.SHADOWING)
    found = rollout.replay
    if found is None and now >= rollout.deadline:
        return Go(Phase.ROLLING_BACK, failure="replay: it was not finished by the deadline")
    if found is None or (found.verdict is Verdict.ERROR and not late):
        return Replay()
    if found.verdict in (Verdict.FAIL, Verdict.ERROR):
        return Go(Phase.ROLLING_BACK, failure=f"replay: {found.reason}")
    if found.verdict is Verdict.PASS or found.evidence.get("rows") == 0 or rollout.command == "promote":
        return Go(Phase.SHADOWING)
    return _undecided(rollout, found.verdict, f"replay: {found.reason}", now, late=True)


def _watch(rollout: Rollout, seen: Observation, now: datetime) -> Action:
    policy = rollout.policy
    if rollout.phase is Phase.SHADOWING and not mirrors(rollout) and policy.approval != "before_shifting":
        return Go(Phase.SHIFTING, step=0)
    late = now >= rollout.deadline
    verdict, why = judge(seen.checks)
    if rollout.confirmed_at is not None and verdict is Verdict.FAIL:
        return Go(Phase.ROLLING_BACK, failure=why)
    if rollout.confirmed_at is None and rollout.slot in target_weights(rollout) and not seen.ready:
        # No step begins with a slot that does not answer: checks know of it only once it has traffic.
        detail = seen.ready_detail or "no answer"
        if seen.ready is None and now < rollout.phase_since + timedelta(seconds=_SHIFT_SECONDS):
            return Wait(f"the slot has to answer before it gets traffic: {detail}")
        return Go(Phase.ROLLING_BACK, failure=f"readiness: {detail}")
    if not _in_force(rollout, seen):
        # A step that an operator asked for after the deadline still gets its time.
        if late and not rollout.asked and now >= rollout.phase_since + timedelta(seconds=_SHIFT_SECONDS):
            return Go(Phase.ROLLING_BACK, failure="traffic: the gateway did not take the weights in time")
        return _shift(rollout)
    if rollout.confirmed_at is None:
        return _shift(rollout)  # in force already, but not by us: confirm, and start the clock of the bake
    if rollout.command == "promote":
        return _next(rollout, skip=True)
    if now < rollout.confirmed_at + timedelta(seconds=_bake_seconds(rollout)):
        return Wait("watching the new version")
    if verdict is not Verdict.PASS:
        return _undecided(rollout, verdict, why, now, late=late)
    return _ask(rollout, "all checks passed", now) if _needs_approval(rollout) else _next(rollout)


def _bake_seconds(rollout: Rollout) -> float:
    policy = rollout.policy
    if rollout.phase is Phase.SHADOWING:
        return policy.shadow_seconds if mirrors(rollout) else 0.0
    return policy.steps[rollout.step].bake_seconds if rollout.phase is Phase.SHIFTING else policy.bake_seconds


def _needs_approval(rollout: Rollout) -> bool:
    where = {"before_shifting": Phase.SHADOWING, "before_promotion": Phase.BAKING}.get(rollout.policy.approval)
    return rollout.phase is where and not rollout.approved


def _undecided(rollout: Rollout, verdict: Verdict, why: str, now: datetime, *, late: bool) -> Action:
    """Too little is known, or nobody could look: wait until the deadline, then do as the policy says."""
    if rollout.asked and not rollout.approved:
        return _ask(rollout, why, now)
    if not late:
        return Wait(f"{verdict}: {why}")
    policy = rollout.policy
    if verdict is Verdict.INCONCLUSIVE and policy.on_inconclusive == "hold":
        return Wait(f"held, {why}; `slipway promote {rollout.model}` or `slipway abort {rollout.model}`")
    if verdict is Verdict.INCONCLUSIVE and policy.on_inconclusive == "ask":
        return _next(rollout) if rollout.approved else _ask(rollout, why, now)
    when = " at the deadline" if now >= rollout.deadline else ""  # a replay is never asked again
    return Go(Phase.ROLLING_BACK, failure=f"{verdict}{when}: {why}")


def _ask(rollout: Rollout, why: str, now: datetime) -> Action:
    if not rollout.asked or rollout.approval_asked_at is None:
        return Ask(why)
    if now >= rollout.approval_asked_at + timedelta(seconds=rollout.policy.approval_timeout_seconds):
        return Go(Phase.ROLLING_BACK, failure="approval: nobody answered in time")
    model = rollout.model
    return Wait(f"waiting for approval, {why}; `slipway approve {model}` or `slipway reject {model}`")


def _next(rollout: Rollout, *, skip: bool = False) -> Action:
    last = len(rollout.policy.steps) - 1
    if rollout.phase is Phase.REPLAYING:
        return Go(Phase.SHADOWING)
    if rollout.phase is Phase.SHADOWING:
        return Go(Phase.SHIFTING, step=last if skip else 0)
    if rollout.phase is Phase.BAKING:
        return Go(Phase.PROMOTING)
    # The last step is all of the traffic; a first release has nothing to share it with.
    if rollout.step >= last or rollout.previous_slot is None:
        return Go(Phase.BAKING)
    return Go(Phase.SHIFTING, step=last if skip else rollout.step + 1)


def _roll_back(rollout: Rollout, seen: Observation, now: datetime) -> Action:
    if not _in_force(rollout, seen) or rollout.confirmed_at is None:
        return _shift(rollout)
    if seen.occupied is not False:
        if _met_dead(rollout, seen, now, rollout.confirmed_at):
            return Wait("the gateway repeats requests that met the slot while it was dead")
        drained = rollout.confirmed_at + timedelta(seconds=rollout.policy.drain_seconds)
        return Wait(f"{seen.active} requests are being answered") if seen.active and now < drained else Stop()
    return Finish(Phase.ABORTED if rollout.failure in _OPERATORS.values() else Phase.ROLLED_BACK)


def _met_dead(rollout: Rollout, seen: Observation, now: datetime, moved: datetime) -> bool:
    """Whether clients' requests may still wait for a slot that died with traffic: stopped now, it would fail them."""
    if rollout.dead_at is None:
        return False
    if not seen.dead:
        return now < rollout.dead_at + timedelta(seconds=_RETRY_SECONDS)
    return now < moved + timedelta(seconds=_RETRIES_SECONDS)
