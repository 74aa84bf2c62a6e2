"""Checks on a new version while it takes traffic; each gives a verdict, and the worst one decides."""

from __future__ import annotations

from collections.abc import Sequence

from slipway.core.verdict import Check, Verdict, worst

__all__ = ["error_rate", "judge", "readiness"]


def judge(checks: Sequence[Check]) -> tuple[Verdict, str]:
    """The verdict of all checks together, and the reason of the first check that gave it."""
    verdict = worst(check.verdict for check in checks)
    reasons = (f"{check.name}: {check.reason}" for check in checks if check.verdict is verdict)
    return verdict, next(reasons, "nothing was checked")


def readiness(ready: bool | None, detail: str) -> Check:
    """The slot still answers its golden rows; `ready` is None when it could not be asked."""
    if ready is None:
        return Check("readiness", Verdict.ERROR, detail or "the slot could not be asked")
    return Check("readiness", Verdict.PASS if ready else Verdict.FAIL, detail or ("ready" if ready else "not ready"))


def error_rate(requests: int, errors: int, *, limit: float, min_requests: int) -> Check:
    """Share of 5xx among a slot's answers in the interval.

    Too few requests are inconclusive, unless the errors alone already break the limit at the least number.

    >>> error_rate(1000, 5, limit=0.01, min_requests=100).verdict
    <Verdict.PASS: 'pass'>
    >>> error_rate(10, 0, limit=0.01, min_requests=100).verdict
    <Verdict.INCONCLUSIVE: 'inconclusive'>
    >>> error_rate(10, 2, limit=0.01, min_requests=100).verdict
    <Verdict.FAIL: 'fail'>
    """
    evidence = {"requests": requests, "errors": errors, "limit": limit, "min_requests": min_requests}
    reason = f"{errors} of {requests} requests failed, the limit is {limit:.2%}"
    if errors > limit * max(requests, min_requests):
        return Check("error_rate", Verdict.FAIL, reason, evidence)
    if requests < min_requests:
        reason = f"{requests} of at least {min_requests} requests seen"
        return Check("error_rate", Verdict.INCONCLUSIVE, reason, evidence)
    return Check("error_rate", Verdict.PASS, reason, evidence)
