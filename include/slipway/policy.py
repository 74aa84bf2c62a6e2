"""How a new version takes over the traffic, and what it has to show on the way; part of a model's spec."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["ChecksPolicy", "RolloutPolicy", "Step", "all_at_once", "canary", "linear"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Step(_Frozen):
    """One traffic step of a rollout: `weight` per cent for the new slot, then a bake."""

    weight: int = Field(ge=1, le=100)
    bake_seconds: float = Field(default=0.0, ge=0)


def all_at_once(bake_seconds: float = 0.0) -> tuple[Step, ...]:
    """One step: all of the traffic at once. Nothing can then be compared with the old slot."""
    return (Step(weight=100, bake_seconds=bake_seconds),)


def canary(*weights: int, bake_seconds: float = 60.0) -> tuple[Step, ...]:
    """Steps of these per cent and then all of it, each but the last with the same bake.

    >>> [step.weight for step in canary()]
    [5, 25, 50, 100]
    """
    parts = [weight for weight in weights or (5, 25, 50) if weight != 100]
    return (*(Step(weight=weight, bake_seconds=bake_seconds) for weight in parts), Step(weight=100))


def linear(percent: int, bake_seconds: float = 60.0) -> tuple[Step, ...]:
    """Equal steps of `percent` each.

    >>> [step.weight for step in linear(30)]
    [30, 60, 90, 100]
    """
    return canary(*range(percent, 100, percent), bake_seconds=bake_seconds)


class ChecksPolicy(_Frozen):
    """What a new version has to show beside the old one over the same interval; None switches a check off.

    Error rate and evidence are in `RolloutPolicy`. Every check may be looked at as often as one likes: its
    chance of failing an equal version, over the whole rollout, stays below `alpha`.
    """

    latency_p50_ratio: float | None = Field(default=1.5, ge=1, description="median latency, new slot by old slot")
    latency_p99_ratio: float | None = Field(default=2.0, ge=1, description="99th percentile, new slot by old slot")
    latency_floor_ms: float = Field(default=5.0, ge=0, description="answers faster than this are never too slow")
    max_rejected_share: float | None = Field(
        default=0.05, ge=0, lt=1, description="429 answers of the new slot, above the old slot's share"
    )
    max_divergence: float | None = Field(
        default=0.15, gt=0, le=1, description="between the slots' distributions of predictions: total variation or KS"
    )
    max_disagreement: float = Field(
        default=0.1, ge=0, lt=1, description="share of replayed or mirrored rows that are predicted differently"
    )
    max_quality_loss: float | None = Field(
        default=0.05, ge=0, description="worsening on labels: share of wrong answers, or share of the old mean error"
    )
    min_labels: int = Field(default=0, ge=0, description="labels that are waited for; 0: those that come are used")
    min_rows: int = Field(default=100, ge=1, description="predictions of a side below which none are compared")
    alpha: float = Field(default=0.01, gt=0, lt=1, description="false alarms of one check over a whole rollout")

    @classmethod
    def off(cls) -> ChecksPolicy:
        """No comparison with the old slot; readiness and error rate remain."""
        ratios = {"latency_p50_ratio": None, "latency_p99_ratio": None, "max_rejected_share": None}
        return cls.model_validate({**ratios, "max_divergence": None, "max_quality_loss": None})


class RolloutPolicy(_Frozen):
    """How a new version takes over the traffic."""

    steps: tuple[Step, ...] = canary()
    bake_seconds: float = Field(default=60.0, ge=0, description="watch time at full weight before promotion")
    replay_requests: int = Field(default=200, ge=0, le=10_000, description="logged requests asked before any traffic")
    shadow_percent: int = Field(default=0, ge=0, le=100, description="of the traffic that is mirrored; 0: no shadow")
    shadow_seconds: float = Field(default=60.0, ge=0)
    ready_timeout_seconds: float = Field(default=60.0, gt=0)
    deadline_seconds: float = Field(default=3600.0, gt=0, description="without the time of waiting for an approval")
    max_error_rate: float = Field(default=0.005, ge=0, le=1, description="5xx answers above the old slot's share")
    min_requests: int = Field(
        default=100, ge=0, description="on the new slot; below it a check is inconclusive, 0: evidence is not needed"
    )
    checks: ChecksPolicy = ChecksPolicy()
    on_inconclusive: Literal["roll_back", "hold", "ask"] = "roll_back"
    approval: Literal["none", "before_shifting", "before_promotion"] = "none"
    approval_timeout_seconds: float = Field(default=86_400.0, gt=0, description="without an answer it is rolled back")
    keep_warm_seconds: float = Field(default=3600.0, ge=0)
    drain_seconds: float = Field(default=20.0, ge=0)
    keep_versions: int = Field(default=3, ge=1, description="that a rollback can reach, the live one not counted")

    @field_validator("steps")
    @classmethod
    def _rises_to_all(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        weights = [step.weight for step in steps]
        if not weights or weights[-1] != 100 or any(first >= second for first, second in pairwise(weights)):
            raise ValueError("steps must rise strictly and end at 100")
        return steps

    @property
    def may_ask(self) -> bool:
        """Whether a person may be needed on the way."""
        return self.approval != "none" or self.on_inconclusive == "ask"

    @property
    def waits_in_vain(self) -> bool:
        """Whether labels are waited for that can never come: all at once, the slots never share any traffic."""
        waits = self.checks.min_labels > 0 and self.checks.max_quality_loss is not None and self.min_requests > 0
        return waits and self.steps[0].weight == 100

    def without_evidence(self) -> RolloutPolicy:
        """The same for a rollback: what is left is known to be worse, so nothing is waited for or compared."""
        return self.model_copy(
            update={
                "steps": all_at_once(),
                "bake_seconds": 0.0,
                "replay_requests": 0,
                "shadow_percent": 0,
                "min_requests": 0,
                "max_error_rate": 1.0,
                "checks": ChecksPolicy.off(),
                "on_inconclusive": "roll_back",
                "approval": "none",
            }
        )
