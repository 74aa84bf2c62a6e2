"""The new version beside the old one by what was logged: predictions, labels, and mirrored answers.

The log is a few seconds behind the answers, and reading it costs more than a counter: it is looked at every few
seconds, and the last look's checks stand in between.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from slipway.core.checks import disagreement, divergence, quality
from slipway.core.rollout import mirrors, target_weights
from slipway.core.rollout_record import Phase
from slipway.core.verdict import Check, Verdict

if TYPE_CHECKING:
    from slipway.core.rollout_record import Rollout
    from slipway.jobs.parts import Parts

__all__ = ["log_checks"]

log = logging.getLogger("slipway")
_LOOK_SECONDS = 4.0


def log_checks(parts: Parts, rollout: Rollout) -> tuple[tuple[Check, ...], Rollout]:
    """The checks of the newest look at the log, and the rollout that remembers it."""
    if not _wants_log(rollout):
        return (), rollout
    last = rollout.evidence.get("log", {})
    now = rollout.driven_at
    if last and now < datetime.fromisoformat(last["at"]) + timedelta(seconds=_LOOK_SECONDS):
        return tuple(Check(**{**c, "verdict": Verdict(c["verdict"])}) for c in last["checks"]), rollout
    look = int(rollout.evidence.get("looks", 0)) + 1
    try:
        found: Sequence[Check] = _look(parts, rollout, now, look)
    except Exception as error:  # whatever reading the lake raises: nobody could look, which must never promote
        log.warning("the prediction log of %s cannot be read: %s", rollout.model, error)
        found = [Check("log", Verdict.ERROR, f"the prediction log cannot be read ({type(error).__name__})")]
    if rollout.policy.min_requests == 0:  # evidence is not needed
        found = [check for check in found if check.verdict is not Verdict.INCONCLUSIVE]
    remembered: dict[str, Any] = {"at": now.isoformat(), "checks": [check.as_dict() for check in found]}
    return tuple(found), replace(rollout, evidence={**rollout.evidence, "looks": look, "log": remembered})


def _wants_log(rollout: Rollout) -> bool:
    checks = rollout.policy.checks
    if rollout.phase is Phase.SHADOWING:
        return mirrors(rollout)
    return rollout.previous_slot is not None and (checks.max_divergence or checks.max_quality_loss) is not None


def _look(parts: Parts, rollout: Rollout, now: datetime, look: int) -> list[Check]:
    policy, old = rollout.policy.checks, rollout.previous_version or ""
    if parts.answers is None:
        return [Check("log", Verdict.ERROR, "there is no prediction log to look at")]
    if rollout.phase is Phase.SHADOWING:
        since = rollout.confirmed_at or now
        pairs = parts.answers.pairs(rollout.model, since, now, old, rollout.version)
        return [disagreement("shadow", pairs, policy, policy.min_rows)]
    since = _time(rollout.evidence.get("traffic_since")) or now
    until = _time(rollout.evidence.get("traffic_until")) or now
    both = parts.answers.sides(rollout.model, since, until, (old, rollout.version))
    judged = quality(both[rollout.version], both[old], policy)
    found = [judged] if judged else []
    shared = rollout.phase is Phase.SHIFTING and len(target_weights(rollout)) == 2
    if policy.max_divergence is not None and shared:
        found.append(_settled(divergence(both[rollout.version], both[old], policy, look), judged))
    return found


def _settled(apart: Check, judged: Check | None) -> Check:
    """A version that answers differently is no worse for it when the labels say so."""
    if apart.verdict is Verdict.PASS or judged is None or not judged.evidence.get("surely_not_worse"):
        return apart
    if apart.verdict is Verdict.INCONCLUSIVE and "distance" not in apart.evidence:
        return apart
    return replace(apart, verdict=Verdict.PASS, reason=f"{apart.reason}, but it is not worse on labels")


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
