"""What passed its data checks and what is quarantined, kept as decisions of the kind `data`.

The newest decision about a subject counts. A subject is a snapshot, by its hash, or a window of traffic, by its ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from slipway.ports import Decision, DecisionLog

__all__ = ["CheckVerdict", "Window", "quarantined_windows", "record_check", "snapshot_check"]

CheckVerdict = Literal["passed", "quarantined"]
_MOST_DECISIONS = 10_000


@dataclass(frozen=True)
class Window:
    """A stretch of time, `start <= ts < end`, in UTC."""

    start: datetime
    end: datetime

    @property
    def name(self) -> str:
        """Fit for file names and keys."""
        return f"{self.start:%Y%m%dT%H%M%S.%fZ}-{self.end:%Y%m%dT%H%M%S.%fZ}"


def record_check(
    decisions: DecisionLog,
    model: str,
    subject: str,
    verdict: CheckVerdict,
    reasons: Sequence[str],
    evidence: Mapping[str, Any],
    now: datetime,
) -> None:
    """Keep the verdict on a subject; nothing happens when it is the verdict that counts already."""
    prefix = f"data:{model}:{subject}:"
    known = [one for one in decisions.recent(model, "data", limit=_MOST_DECISIONS) if one.key.startswith(prefix)]
    if known and known[0].verdict == verdict:
        return
    key = f"{prefix}{len(known) + 1}:{verdict}"
    decisions.record(Decision(key, model, "data", verdict, tuple(reasons), evidence, now))


def snapshot_check(decisions: DecisionLog, model: str, sha256: str) -> Decision | None:
    """The decision that counts about a snapshot; None when it was never checked."""
    found = decisions.recent(model, "data", limit=_MOST_DECISIONS)
    return next((one for one in found if one.evidence.get("sha256") == sha256), None)


def quarantined_windows(decisions: DecisionLog, model: str) -> Sequence[Window]:
    """Windows whose newest data check failed."""
    newest: dict[tuple[str, str], str] = {}
    for decision in decisions.recent(model, "data", limit=_MOST_DECISIONS):
        start, end = decision.evidence.get("start"), decision.evidence.get("end")
        if start and end:
            newest.setdefault((str(start), str(end)), decision.verdict)
    return [
        Window(datetime.fromisoformat(start), datetime.fromisoformat(end))
        for (start, end), verdict in newest.items()
        if verdict == "quarantined"
    ]
