"""Before any traffic: the last logged requests go through the new slot, and what differs becomes a report and a check.

The old slot is asked the same at the same time, for its latency only; both are told that this is no traffic. Where luck
could decide between pass and fail, older requests follow: the tests hold at every look.
"""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

from slipway.core.checks import Pair, disagreement, error_rate, judge, slower
from slipway.core.verdict import Check, Verdict
from slipway.errors import SlipwayError

if TYPE_CHECKING:
    from datetime import datetime

    from slipway.core.rollout_record import Rollout
    from slipway.core.routes import Address
    from slipway.jobs.parts import AnswerLog, LoggedRequest, Parts

__all__ = ["replay"]

_MOST_SECONDS = 20.0  # the model's lock is held meanwhile
_MOST_TIMES = 5  # as many requests as the policy names, when so many cannot tell
_MOST_REQUESTS = 10_000
_SHOWN = 50
_STYLE = (
    "body{font:15px sans-serif;margin:2em}table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:4px 8px}"
)


@dataclass
class _Replayed:
    """What came of asking both slots."""

    pairs: list[Pair] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    new_ms: list[float] = field(default_factory=list)
    old_ms: list[float] = field(default_factory=list)
    failed: int = 0
    refused: int = 0
    detail: str = ""

    def add(self, asked: LoggedRequest, predictions: Sequence[str | float]) -> None:
        each = zip(asked.rows, asked.predictions, predictions, asked.labels, strict=True)
        for number, (row, old, new, label) in enumerate(each):
            self.pairs.append(Pair(old, new, label))
            self.rows.append({"request_id": asked.request_id, "row": number, "input": row, "old": old, "new": new})


def replay(parts: Parts, rollout: Rollout) -> Check:
    """Ask the new slot what was logged lately, write the report, and judge it.

    Nothing logged gives an inconclusive check over 0 rows.

    Raises:
        SlipwayError: the log cannot be read, or the new slot does not answer.
    """
    if parts.answers is None:
        return Check("replay", Verdict.INCONCLUSIVE, "there is no prediction log", {"rows": 0})
    done, ends = _Replayed(), 0.0
    checks: list[Check] = []
    for asked in _batches(parts.answers, rollout, parts.clock.now()):
        ends = ends or time.monotonic() + _MOST_SECONDS
        _ask(parts, rollout, asked, done, ends)
        checks = _judge(rollout, done)
        # A refused request stays one, however many others are asked.
        if judge(checks)[0] is not Verdict.INCONCLUSIVE or done.refused or time.monotonic() > ends:
            break
    if not checks:
        return Check("replay", Verdict.INCONCLUSIVE, "nothing comparable was logged yet", {"rows": 0})
    verdict, why = judge(checks)
    if verdict is Verdict.PASS:
        why = "; ".join(check.reason for check in checks)
    summary = {
        "model": rollout.model,
        "version": rollout.version,
        "previous_version": rollout.previous_version,
        "rows": len(done.pairs) + done.refused + done.failed,
        "refused": done.refused,
        "failed": done.failed,
        "latency_ms": {"new": _spread(done.new_ms), "old": _spread(done.old_ms)},
        "verdict": verdict.value,
        "checks": [check.as_dict() for check in checks],
    }
    name = f"replay-{rollout.id[:12]}"
    content = json.dumps({**summary, "answers": done.rows}, indent=1, default=str)
    parts.answers.write_report(rollout.model, name, "replay.json", content)
    uri = parts.answers.write_report(rollout.model, name, "replay.html", _page(summary, done.rows))
    return Check("replay", verdict, why, {**summary, "report": uri})


def _batches(answers: AnswerLog, rollout: Rollout, now: datetime) -> Iterator[Sequence[LoggedRequest]]:
    """The last logged requests, as many as the policy names, and then as many older ones again and again."""
    model, many = rollout.model, rollout.policy.replay_requests
    newest = answers.last_requests(model, now, many)
    if not newest:
        return
    yield newest
    known = {one.request_id for one in newest}
    found = answers.last_requests(model, now, min(many * _MOST_TIMES, _MOST_REQUESTS))
    older = [one for one in found if one.request_id not in known]
    for end in range(len(older), 0, -many):
        yield older[max(0, end - many) : end]


def _ask(parts: Parts, rollout: Rollout, asked: Sequence[LoggedRequest], done: _Replayed, ends: float) -> None:
    places = {slot.slot: slot.address for slot in parts.store.slots(rollout.model)}
    old = places.get(rollout.previous_slot) if rollout.previous_slot else None
    for one in asked:
        body = {"rows": list(one.rows)}
        answer = parts.probe.predict(rollout.model, places[rollout.slot], body, one.request_id)
        if answer.status >= 500:
            done.failed, done.detail = done.failed + 1, answer.detail
        elif answer.status != 200 or len(answer.predictions) != len(one.rows):
            done.refused, done.detail = done.refused + 1, answer.detail
        else:
            done.add(one, answer.predictions)
            done.new_ms.append(answer.latency_ms)
        if old is not None:
            old = _time_old(parts, rollout, old, body, one.request_id, done)
        if time.monotonic() > ends:
            break


def _time_old(
    parts: Parts, rollout: Rollout, address: Address, body: dict[str, Any], request_id: str, done: _Replayed
) -> Address | None:
    """Time one request in the old slot; None when it does not answer, so that it is not asked again."""
    try:
        answer = parts.probe.predict(rollout.model, address, body, request_id)
    except SlipwayError:
        return None
    if answer.status == 200:
        done.old_ms.append(answer.latency_ms)
    return address


def _judge(rollout: Rollout, done: _Replayed) -> list[Check]:
    policy, asked = rollout.policy, len(done.new_ms) + done.failed
    found = []
    if asked:
        errors = error_rate(asked, done.failed, limit=policy.max_error_rate, min_requests=0)
        found.append(Check("errors", errors.verdict, errors.reason, errors.evidence))
    if done.refused:
        reason = f"{done.refused} logged requests are refused: {done.detail}"
        found.append(Check("refused", Verdict.INCONCLUSIVE, reason, {"refused": done.refused}))
    if done.pairs:
        found.append(disagreement("predictions", done.pairs, policy.checks, 1))
    ratio = policy.checks.latency_p50_ratio
    if ratio is not None and done.new_ms and done.old_ms:
        found.append(slower("latency", done.new_ms, done.old_ms, ratio, policy.checks))
    return found


def _spread(times: Sequence[float]) -> dict[str, float] | None:
    if len(times) < 2:
        return None
    return {"p50": round(median(times), 3), "p99": round(quantiles(times, n=100)[98], 3), "requests": len(times)}


def _page(summary: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """The report for people: the checks, the latency, and the first rows that are predicted differently."""
    checks = [(c["name"], c["verdict"], c["reason"]) for c in summary["checks"]]
    times = [(side, *(found or {}).values()) for side, found in summary["latency_ms"].items()]
    different = [row for row in rows if row["old"] != row["new"]]
    shown = [(r["request_id"], json.dumps(r["input"], default=str), r["old"], r["new"]) for r in different[:_SHOWN]]
    title = f"{summary['model']}: version {summary['version']} beside version {summary['previous_version']}"
    return "".join(
        (
            f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><style>{_STYLE}</style>",
            f"<h1>{html.escape(title)}</h1><p>Replay of {summary['rows']} logged rows: <b>{summary['verdict']}</b></p>",
            _table(("check", "verdict", "reason"), checks),
            "<h2>Latency in milliseconds</h2>",
            _table(("side", "p50", "p99", "requests"), times),
            f"<h2>{len(different)} different predictions, the first {min(_SHOWN, len(different))}</h2>",
            _table(("request", "input", "old", "new"), shown),
        )
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table>{''.join(lines)}</table>"
