"""Four-valued verdicts, and how several become one.

`inconclusive` (too little evidence) and `error` (could not look) are values of their own: neither may
ever pass for a success. The worst of several verdicts wins, in the order pass < inconclusive < error < fail.

>>> worst([Verdict.PASS, Verdict.INCONCLUSIVE])
<Verdict.INCONCLUSIVE: 'inconclusive'>
>>> worst([])
<Verdict.INCONCLUSIVE: 'inconclusive'>
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Check", "Verdict", "worst"]


class Verdict(StrEnum):
    """What one check says."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"
    FAIL = "fail"

    @property
    def severity(self) -> int:
        return _ORDER.index(self)


_ORDER = (Verdict.PASS, Verdict.INCONCLUSIVE, Verdict.ERROR, Verdict.FAIL)


@dataclass(frozen=True)
class Check:
    """One named check with its verdict, one line of reason, and the numbers behind it (plain JSON)."""

    name: str
    verdict: Verdict
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "evidence": dict(self.evidence),
        }


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict of the whole; nothing looked at is inconclusive, never a pass."""
    return max(verdicts, key=lambda verdict: verdict.severity, default=Verdict.INCONCLUSIVE)
