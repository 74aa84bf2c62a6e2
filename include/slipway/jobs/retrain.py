"""Decide whether a watched window warrants a retrain, and assemble the data to train on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from slipway.core.retrain import History, Quality
from slipway.core.retrain import decide as decide_purely
from slipway.errors import DataError, NotFoundError, QuarantineError
from slipway.jobs.data_checks import check_frame
from slipway.jobs.holdout import TIME_COLUMN
from slipway.jobs.quarantine import Window, quarantined_windows, record_check
from slipway.jobs.snapshot import plain_columns, write_checks
from slipway.jobs.window import join_labels, sample_rows, without_quarantined
from slipway.ports import Decision, DecisionLog, Lake, ModelVersion, Registry, Snapshot, Validator
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["assemble", "decide"]

_log = logging.getLogger(__name__)
_HISTORY = 200


def decide(
    spec: ModelSpec, watched: Mapping[str, Any], *, decisions: DecisionLog, now: datetime, insisted: bool = False
) -> dict[str, Any]:
    """Whether to retrain after `watch` gave `watched`; `insisted` when a person asks for it against the policy.

    Returns:
        `retrain` (bool), `verdict` (retrain, not_needed, held, alert), `reasons`, and the window that was judged. A
        repeat after a retrain was decided on gives that decision again, whatever the circuit breaker would say now.
    """
    key = f"retrain:{spec.name}:v{watched['champion']}:{watched['start']}:{watched['end']}"
    known = [one for one in decisions.recent(spec.name, "retrain", limit=_HISTORY) if one.key == f"{key}:retrain"]
    if known:
        return dict(known[0].evidence)
    quality = Quality.from_dict(watched["quality"]) if watched.get("quality") else None
    history = _history(spec, decisions)
    estimated = (watched.get("estimate") or {}).get("relative_loss")
    result = decide_purely(
        watched["verdict"],
        bool(watched["confirmed"]),
        quality,
        history,
        spec.retrain,
        now,
        estimated,
        insisted=insisted,
    )
    evidence = {
        "retrain": result.retrain,
        "verdict": result.verdict,
        "reasons": list(result.reasons),
        **{name: watched[name] for name in ("model", "champion", "start", "end", "quality")},
        "drift": watched["verdict"],
        "confirmed": watched["confirmed"],
        "reports": dict(watched.get("reports") or {}),
        "retrained_at": [at.isoformat() for at in history.retrained_at[:10]],
        "rejected_in_a_row": history.rejected_in_a_row,
    }
    decisions.record(
        Decision(f"{key}:{result.verdict}", spec.name, "retrain", result.verdict, result.reasons, evidence, now)
    )
    log = _log.warning if result.verdict == "alert" else _log.info
    log("%s retrain: %s, %s", spec.name, result.verdict, "; ".join(result.reasons))
    return evidence


def _history(spec: ModelSpec, decisions: DecisionLog) -> History:
    retrained = [one.at for one in decisions.recent(spec.name, "retrain", limit=_HISTORY) if one.verdict == "retrain"]
    rejected = 0
    for one in decisions.recent(spec.name, "gate", limit=_HISTORY):
        if one.verdict == "pass":
            break
        rejected += one.evidence.get("reason") == "drift"
    return History(retrained, rejected)


def assemble(
    spec: ModelSpec,
    decision: Mapping[str, Any],
    *,
    lake: Lake,
    registry: Registry,
    validator: Validator,
    decisions: DecisionLog,
    now: datetime,
) -> Snapshot:
    """The champion's training data plus validated, labelled rows of the log, as a snapshot.

    Logged rows keep their time in the column `ts`, so that the newest of them can be held out; rows that the champion
    knows already have none. Rows of quarantined windows are left out, whatever window asks for them.

    Raises:
        NotFoundError: the version that was judged, or its data, is gone.
        DataError: too few labelled rows are left.
        QuarantineError: the labelled rows fail their data checks.
    """
    import pandas as pd

    champion = registry.version(spec.name, str(decision["champion"]))
    if "slipway.snapshot" not in champion.tags:
        raise NotFoundError(f"{spec.name}: version {champion.version} does not say what it was trained on")
    window = _source_window(spec, champion, decision)
    fresh = _labelled_rows(spec, window, lake, decisions)
    if len(fresh) < spec.retrain.min_new_labels:
        raise DataError(
            f"{spec.name}: {len(fresh)} labelled rows outside of quarantine since {window.start.isoformat()}, "
            f"{spec.retrain.min_new_labels} needed"
        )
    _validate_fresh(spec, window, fresh, lake, validator, decisions, now)
    reference = lake.read_snapshot(lake.snapshot(spec.name, champion.tags["slipway.snapshot"]))
    reference[TIME_COLUMN] = pd.Series(pd.NaT, index=reference.index, dtype=fresh[TIME_COLUMN].dtype)
    if spec.time is not None and spec.time not in fresh:
        fresh[spec.time] = fresh[TIME_COLUMN].astype(reference[spec.time].dtype)
    joined = pd.concat([reference, fresh[[*reference.columns]]], ignore_index=True)
    taken = lake.write_snapshot(spec.name, joined, "retrain")
    evidence = {"sha256": taken.sha256, "rows": taken.rows, "fresh_rows": len(fresh), "source": "retrain"}
    reasons = (f"{len(reference)} reference rows and {len(fresh)} validated, labelled rows of the log",)
    record_check(decisions, spec.name, taken.sha256, "passed", reasons, evidence, now)
    _log.info("%s: assembled %s: %s", spec.name, taken.sha256[:12], reasons[0])
    return taken


def _source_window(spec: ModelSpec, champion: ModelVersion, decision: Mapping[str, Any]) -> Window:
    """From the first window that could have confirmed the drift, but nothing that the champion was trained on.

    The whole is moved back by the time that labels take, as the window was on which the loss was measured.
    """
    start, end = (datetime.fromisoformat(str(decision[name])) for name in ("start", "end"))
    start = min(start, end - timedelta(hours=spec.drift.window_hours * spec.drift.confirm_of))
    delay = timedelta(hours=spec.retrain.label_delay_hours)
    start, end = start - delay, end - delay
    until = champion.tags.get("slipway.data_until", "")
    if until:
        start = max(start, datetime.fromisoformat(until) + timedelta(microseconds=1))
    return Window(start, end)


def _labelled_rows(spec: ModelSpec, window: Window, lake: Lake, decisions: DecisionLog) -> pd.DataFrame:
    if not window.start < window.end:
        raise DataError(f"{spec.name}: the champion was trained on everything that was logged until {window.end}")
    logged = lake.predictions(spec.name, window.start, window.end)
    kept = without_quarantined(logged, quarantined_windows(decisions, spec.name))
    if len(kept) < len(logged):
        _log.warning("%s: %d logged rows are quarantined and left out", spec.name, len(logged) - len(kept))
    labelled = sample_rows(join_labels(spec, lake, kept, window.start), spec.drift.max_rows)
    columns = [*spec.feature_names, spec.target.name, TIME_COLUMN]
    ordered = labelled.sort_values([TIME_COLUMN, "request_id", "row"], kind="stable")
    return plain_columns(spec, ordered[columns])


def _validate_fresh(
    spec: ModelSpec,
    window: Window,
    fresh: pd.DataFrame,
    lake: Lake,
    validator: Validator,
    decisions: DecisionLog,
    now: datetime,
) -> None:
    outcome = check_frame(spec, fresh, validator, min_rows=spec.retrain.min_new_labels, target=True)
    title = f"{spec.name}: labelled traffic {window.start.isoformat()} to {window.end.isoformat()}"
    url = write_checks(spec, lake, f"labelled-{window.name}", outcome, title)
    if outcome.passed:
        return
    evidence = {
        "start": window.start.isoformat(),
        "end": window.end.isoformat(),
        "failures": list(outcome.failures),
        "report": url,
    }
    record_check(decisions, spec.name, f"window:{window.name}", "quarantined", outcome.failures, evidence, now)
    raise QuarantineError(f"{spec.name}: the labelled rows are quarantined: {'; '.join(outcome.failures)}; see {url}")
