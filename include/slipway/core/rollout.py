"""The rollout as a pure state machine: `decide(rollout, observation, now)` says what to do next.

    packaged → starting → verifying → replaying → shadowing → shifting(step i) → baking → promoting → live
                                any failed check → rolling_back → rolled_back;   operator → aborted

The caller does one action, reads its effect back, saves, and asks again. Every action may be done twice, so
a driver that is killed anywhere leaves a rollout that the next driver finishes or rolls back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from slipway.core.checks import judge
from slipway.core.routes import SlotName
from slipway.core.verdict import Check, Verdict
from slipway.spec import RolloutPolicy

__all__ = [
    "ENDED",
    "Action",
    "Finish",
    "Go",
    "Observation",
    "Phase",
    "Promote",
    "Rollout",
    "Shift",
    "Start",
    "Stop",
    "Wait",
    "decide",
    "target_weights",
]


class Phase(StrEnum):
    """Where a rollout is; the order is the order of a good one."""

    PACKAGED = "packaged"
    STARTING = "starting"
    VERIFYING = "verifying"
    REPLAYING = "replaying"
    SHADOWING = "shadowing"
    SHIFTING = "shifting"
    BAKING = "baking"
    PROMOTING = "promoting"
    LIVE = "live"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"


ENDED = frozenset({Phase.LIVE, Phase.ROLLED_BACK, Phase.ABORTED})
_SHIFT_SECONDS = 30.0
_SILENT_SECONDS = 5.0
ABORTED_BY_OPERATOR = "aborted by an operator"
_BEFORE_TRAFFIC = frozenset({Phase.PACKAGED, Phase.STARTING, Phase.VERIFYING, Phase.REPLAYING, Phase.SHADOWING})


@dataclass(frozen=True)
class Rollout:
    """One attempt to make a version live, as it is kept in Postgres.

    Attributes:
        slot: where the new version runs; `previous_slot` keeps the old one, None at a first release.
        phase_since: when the phase (or the step of shifting) began.
        confirmed_at: when the gateway was first seen to apply this step's weights; the bake counts from here.
        baseline: the new slot's counters at that moment, so that a check sees this interval only.
        command: what an operator asked for; obeyed by the next decision.
        failure: why it is being rolled back; names the check.
        driven_at: when somebody last advanced it.
    """

    id: str
    model: str
    version: str
    kind: Literal["release", "rollback"]
    phase: Phase
    slot: SlotName
    policy: RolloutPolicy
    actor: str
    reason: str
    started_at: datetime
    phase_since: datetime
    driven_at: datetime
    previous_slot: SlotName | None = None
    previous_version: str | None = None
    step: int = 0
    dag_run: str | None = None
    command: Literal["abort", "promote"] | None = None
    failure: str | None = None
    confirmed_at: datetime | None = None
    finished_at: datetime | None = None
    baseline: Mapping[str, int] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def deadline(self) -> datetime:
        return self.started_at + timedelta(seconds=self.policy.deadline_seconds)

    def moved(self, phase: Phase, now: datetime, *, step: int | None = None, failure: str | None = None) -> Rollout:
        """The same rollout in another phase or step, with that phase's clock started."""
        return replace(
            self,
            phase=phase,
            step=self.step if step is None else step,
            failure=failure or self.failure,
            phase_since=now,
            confirmed_at=None,
            finished_at=now if phase in ENDED else None,
        )

    def resumed(self, now: datetime) -> Rollout:
        """The same rollout, driven now. Time in which nobody drove it is no fault of a slot that is starting."""
        silent = now - self.driven_at
        if self.phase in _BEFORE_TRAFFIC and silent > timedelta(seconds=_SILENT_SECONDS):
            return replace(self, driven_at=now, phase_since=min(now, self.phase_since + silent))
        return replace(self, driven_at=now)


@dataclass(frozen=True)
class Observation:
    """What was seen of the outside just now.

    Attributes:
        running: the runtime runs the rollout's version in its slot.
        occupied: the runtime has anything in that slot, also something that keeps crashing.
        ready: the slot answers its golden rows correctly; None when it could not be asked.
        weights: what the gateway applies by slot; None when it could not be asked.
        active: requests that the new slot is answering.
        checks: judgements on the new slot since the baseline.
    """

    running: bool
    occupied: bool
    ready: bool | None = None
    ready_detail: str = ""
    weights: Mapping[SlotName, int] | None = None
    active: int = 0
    checks: Sequence[Check] = ()


@dataclass(frozen=True)
class Start:
    """Start the version in its slot."""


@dataclass(frozen=True)
class Stop:
    """Stop the new version's slot; it has no traffic any more."""


@dataclass(frozen=True)
class Shift:
    """Make the gateway apply these weights, and read them back."""

    weights: Mapping[SlotName, int]


@dataclass(frozen=True)
class Go:
    """Enter another phase, or the next step of shifting."""

    phase: Phase
    step: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Promote:
    """Move the alias, then write the ledger row and the phase `live` in one transaction."""


@dataclass(frozen=True)
class Finish:
    """End without the version live: rolled back, or aborted by an operator."""

    phase: Phase


@dataclass(frozen=True)
class Wait:
    """Nothing to do yet; `why` is shown to the operator."""

    why: str


Action = Start | Stop | Shift | Go | Promote | Finish | Wait


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


def decide(rollout: Rollout, seen: Observation, now: datetime) -> Action:
    """The one next action. Pure: the same arguments always give the same action."""
    if rollout.ended:
        return Wait(f"the rollout has ended: {rollout.phase}")
    if rollout.phase is Phase.ROLLING_BACK:
        return _roll_back(rollout, seen, now)
    if rollout.phase is Phase.PROMOTING:
        return _promote(rollout, seen)
    if rollout.command == "abort":
        return Go(Phase.ROLLING_BACK, failure=ABORTED_BY_OPERATOR)
    if rollout.phase in _BEFORE_TRAFFIC:
        return _prepare(rollout, seen, now)
    return _watch(rollout, seen, now)


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
        return Wait(seen.ready_detail or "the slot is not ready yet") if seen.running else Start()
    # Replay and shadow have nothing to do in this policy: they pass straight through.
    return Go(Phase.SHADOWING) if rollout.phase is Phase.REPLAYING else Go(Phase.SHIFTING, step=0)


def _watch(rollout: Rollout, seen: Observation, now: datetime) -> Action:
    policy = rollout.policy
    late = now >= rollout.deadline
    verdict, why = judge(seen.checks)
    if rollout.confirmed_at is not None and verdict is Verdict.FAIL:
        return Go(Phase.ROLLING_BACK, failure=why)
    wanted = target_weights(rollout)
    if seen.weights is None or dict(seen.weights) != wanted:
        # A step that an operator asked for after the deadline still gets its time.
        if late and now >= rollout.phase_since + timedelta(seconds=_SHIFT_SECONDS):
            return Go(Phase.ROLLING_BACK, failure="traffic: the gateway did not take the weights in time")
        return Shift(wanted)
    if rollout.confirmed_at is None:
        return Shift(wanted)  # in force already, but not by us: confirm, and start the clock of the bake
    if rollout.command == "promote":
        return _next(rollout, skip=True)
    bake = policy.steps[rollout.step].bake_seconds if rollout.phase is Phase.SHIFTING else policy.bake_seconds
    if now < rollout.confirmed_at + timedelta(seconds=bake):
        return Wait(f"{rollout.phase}: watching the new version")
    if verdict is Verdict.PASS:
        return _next(rollout)
    if not late:
        return Wait(f"{verdict}: {why}")
    if verdict is Verdict.INCONCLUSIVE and policy.on_inconclusive == "hold":
        return Wait(f"held, {why}; `slipway promote {rollout.model}` or `slipway abort {rollout.model}`")
    return Go(Phase.ROLLING_BACK, failure=f"{verdict} at the deadline: {why}")


def _next(rollout: Rollout, *, skip: bool = False) -> Action:
    if rollout.phase is Phase.BAKING:
        return Go(Phase.PROMOTING)
    # The last step is all of the traffic; a first release has nothing to share it with.
    last = len(rollout.policy.steps) - 1
    if rollout.step >= last or rollout.previous_slot is None:
        return Go(Phase.BAKING)
    return Go(Phase.SHIFTING, step=last if skip else rollout.step + 1)


def _promote(rollout: Rollout, seen: Observation) -> Action:
    wanted = target_weights(rollout)
    if seen.weights is None or dict(seen.weights) != wanted:
        return Shift(wanted)
    return Promote()


def _roll_back(rollout: Rollout, seen: Observation, now: datetime) -> Action:
    wanted = target_weights(rollout)
    if seen.weights is None or dict(seen.weights) != wanted or rollout.confirmed_at is None:
        return Shift(wanted)
    if seen.occupied:
        drained = rollout.confirmed_at + timedelta(seconds=rollout.policy.drain_seconds)
        return Wait(f"{seen.active} requests are being answered") if seen.active and now < drained else Stop()
    return Finish(Phase.ABORTED if rollout.failure == ABORTED_BY_OPERATOR else Phase.ROLLED_BACK)
