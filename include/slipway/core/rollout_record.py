"""The record of a rollout, what is seen of the world while it runs, and the actions that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal

from slipway.core.routes import SlotName
from slipway.core.verdict import Check, Verdict
from slipway.policy import RolloutPolicy

__all__ = [
    "ENDED",
    "PREPARING",
    "WATCHED",
    "Action",
    "Ask",
    "Finish",
    "Go",
    "Observation",
    "Phase",
    "Promote",
    "Replay",
    "Rollout",
    "Shift",
    "Start",
    "Stop",
    "Wait",
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
PREPARING = frozenset({Phase.PACKAGED, Phase.STARTING, Phase.VERIFYING, Phase.REPLAYING})
WATCHED = frozenset({Phase.SHADOWING, Phase.SHIFTING, Phase.BAKING})
_SILENT_SECONDS = 5.0
# Evidence that holds beyond its phase and step.
_LASTING = ("replay", "old_errors", "looks", "traffic_since", "traffic_until", "dead_at")


@dataclass(frozen=True)
class Rollout:
    """One attempt to make a version live, as it is kept in Postgres.

    Attributes:
        slot: where the new version runs; `previous_slot` keeps the old one, None at a first release.
        phase_since: when the phase (or the step of shifting) began.
        confirmed_at: when the gateway was first seen to apply this step's weights; the bake counts from here.
        baseline: both slots' counters at that moment, so that a check sees this interval only.
        evidence: what was found out at some cost and is kept between two looks: the replay, the log's comparison.
        command: what an operator asked for; obeyed by the next decision.
        approval_asked_at: when a person was last asked; `approved_at` when one last agreed.
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
    command: Literal["abort", "promote", "reject"] | None = None
    failure: str | None = None
    confirmed_at: datetime | None = None
    approval_asked_at: datetime | None = None
    approved_at: datetime | None = None
    finished_at: datetime | None = None
    baseline: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def asked(self) -> bool:
        """A person was asked in this phase and step."""
        return self.approval_asked_at is not None and self.approval_asked_at >= self.phase_since

    @property
    def approved(self) -> bool:
        """A person agreed in this phase and step; what was approved before does not count for it."""
        return self.asked and self.approved_at is not None and self.approved_at >= self.phase_since

    @property
    def _approval_seconds(self) -> float:
        before = float(self.evidence.get("approval_seconds", 0.0))
        if not self.approved or self.approved_at is None or self.approval_asked_at is None:
            return before
        return before + max(0.0, (self.approved_at - self.approval_asked_at).total_seconds())

    @property
    def deadline(self) -> datetime:
        """By when it has to be decided; the time in which a person was waited for is no part of it."""
        return self.started_at + timedelta(seconds=self.policy.deadline_seconds + self._approval_seconds)

    @property
    def dead_at(self) -> datetime | None:
        """When the slot was last seen not to answer, once it had traffic."""
        found = self.evidence.get("dead_at")
        return datetime.fromisoformat(found) if found else None

    @property
    def replay(self) -> Check | None:
        """What the replay found, once it was done."""
        found = self.evidence.get("replay")
        return Check(**{**found, "verdict": Verdict(found["verdict"])}) if found else None

    def moved(self, phase: Phase, now: datetime, *, step: int | None = None, failure: str | None = None) -> Rollout:
        """The same rollout in another phase or step, with that phase's clock started."""
        evidence = {key: self.evidence[key] for key in _LASTING if key in self.evidence}
        return replace(
            self,
            evidence=evidence | ({"approval_seconds": self._approval_seconds} if self._approval_seconds else {}),
            phase=phase,
            step=self.step if step is None else step,
            failure=failure or self.failure,
            phase_since=now,
            confirmed_at=None,
            finished_at=now if phase in ENDED else None,
        )

    def resumed(self, now: datetime) -> Rollout:
        """The same rollout, driven now. Time in which nobody drove it is no fault of a slot that is starting.

        A question keeps its time: moved, the phase would begin after it was asked, and its answer count for nothing.
        """
        silent = now - self.driven_at
        if self.phase in PREPARING and not self.asked and silent > timedelta(seconds=_SILENT_SECONDS):
            return replace(self, driven_at=now, phase_since=min(now, self.phase_since + silent))
        return replace(self, driven_at=now)


@dataclass(frozen=True)
class Observation:
    """What was seen of the outside just now.

    Attributes:
        running: the runtime runs the rollout's version in its slot; None when it could not be asked and the slot did
            not say so itself.
        occupied: the runtime has anything in that slot, also something that keeps crashing; None when it could not be
            asked.
        ready: the slot answers its golden rows correctly; None when it could not be asked.
        dead: nothing listens in the slot.
        weights: what the gateway applies by slot; None when it could not be asked.
        shadow: per cent of the traffic that it mirrors to the new slot.
        active: requests that the new slot is answering.
        checks: judgements on the new slot since the baseline.
    """

    running: bool | None
    occupied: bool | None
    ready: bool | None = None
    ready_detail: str = ""
    dead: bool = False
    weights: Mapping[SlotName, int] | None = None
    shadow: int = 0
    active: int = 0
    checks: Sequence[Check] = ()


@dataclass(frozen=True)
class Start:
    """Start the version in its slot."""


@dataclass(frozen=True)
class Stop:
    """Stop the new version's slot; it has no traffic any more."""


@dataclass(frozen=True)
class Replay:
    """Ask the new slot what was logged lately, and compare."""


@dataclass(frozen=True)
class Shift:
    """Make the gateway apply these weights, mirror this per cent to the new slot, and read both back."""

    weights: Mapping[SlotName, int]
    shadow: int = 0


@dataclass(frozen=True)
class Go:
    """Enter another phase, or the next step of shifting."""

    phase: Phase
    step: int | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Ask:
    """Ask a person for approval; `why` is what for."""

    why: str


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


Action = Start | Stop | Replay | Shift | Go | Ask | Promote | Finish | Wait
