"""Judge a window of logged predictions: data checks, coverage, drift against the champion's training data, quality.

The order matters. A window that fails its data checks is quarantined, since statistics over broken data mean nothing;
a window that is incompletely logged or too small is inconclusive, since silence is not health. Only then drift is
looked for, and Evidently's report is drawn with the very thresholds of the verdict.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slipway.core.drift import Column, DriftResult, confirmed, inconclusive, judge_window
from slipway.core.encoding import encode_target
from slipway.core.metrics import score
from slipway.core.retrain import Quality, measure_quality
from slipway.core.text_features import text_columns
from slipway.errors import DataError, NotFoundError
from slipway.jobs.data_checks import check_frame
from slipway.jobs.estimate import estimate_quality
from slipway.jobs.quarantine import CheckVerdict, Window, quarantined_windows, record_check
from slipway.jobs.season import cycle_of, in_season
from slipway.jobs.snapshot import plain_columns, write_checks
from slipway.jobs.window import (
    PREDICTION,
    champion_answers,
    drift_frame,
    labelled_rows,
    sample_rows,
    without_quarantined,
)
from slipway.ports import (
    Decision,
    DecisionLog,
    DriftReporter,
    Lake,
    ModelFiles,
    ModelVersion,
    Registry,
    Scorer,
    Tracker,
    Validator,
)
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["watch"]

_log = logging.getLogger(__name__)


def watch(
    spec: ModelSpec,
    start: datetime,
    end: datetime,
    *,
    lake: Lake,
    tracker: Tracker,
    registry: Registry,
    files: ModelFiles,
    validator: Validator,
    reporter: DriftReporter,
    decisions: DecisionLog,
    now: datetime,
    answered_rows: int | None = None,
) -> dict[str, Any]:
    """The verdict on `start <= ts < end` with its evidence, recorded as a decision and linked to its reports.

    Args:
        answered_rows: how many rows were answered in the window, where that is known, to compare with the log.

    Returns:
        `verdict` (no_drift, drift, inconclusive, quarantined), `confirmed`, `reasons`, `columns`, `score`, `quality`
        (None without labels), `estimate` (of quality, without labels), `champion`, `start`, `end`, `rows`, `reports`
        by name.

    Raises:
        NotFoundError: the model has no champion.
        DataError: the window is empty or has no time zone.
    """
    if start.tzinfo is None or end.tzinfo is None or not start < end:
        raise DataError(f"{spec.name}: the window {start} to {end} must have a time zone and end after its start")
    champion = registry.by_alias(spec.name, "champion")
    if champion is None:
        raise NotFoundError(f"{spec.name} has no champion to judge; release a version first")
    window = Window(start, end)
    logged = lake.count_predictions(spec.name, start, end)
    rows = plain_columns(spec, lake.predictions(spec.name, start, end, limit=spec.drift.max_rows))
    reports: dict[str, str] = {}
    quality: Quality | None = None
    estimate: dict[str, Any] | None = None
    early = _incomplete(spec, window, logged, answered_rows, decisions, now)
    if early is None:
        trained_on = _trained_on(spec, champion, lake)
        early = _broken(spec, window, rows, lake, validator, decisions, reports, now, trained_on)
    if early is not None:
        result = early
    else:
        scorer = _scorer(tracker, files, champion)
        result = _judge(spec, champion, window, rows, trained_on, scorer, lake, reporter, reports)
        quality = _quality(spec, champion, window, trained_on, scorer, lake, decisions)
        estimate = _estimate(spec, champion, rows, trained_on, scorer)
    if logged > len(rows):
        result = replace(result, reasons=(*result.reasons, f"judged on {len(rows)} of {logged} rows"))
    outcome = _outcome(spec, champion, window, logged, result, quality, estimate, reports, decisions)
    label_rows = quality.rows if quality else 0
    key = f"drift:{spec.name}:v{champion.version}:{window.name}:{logged}:{label_rows}"
    decisions.record(Decision(key, spec.name, "drift", result.verdict, result.reasons, outcome, now))
    _log.info("%s %s: %s, %s", spec.name, window.name, result.verdict, "; ".join(result.reasons))
    for name, url in reports.items():
        _log.info("%s report: %s", name, url)
    return outcome


def _incomplete(
    spec: ModelSpec, window: Window, logged: int, answered: int | None, decisions: DecisionLog, now: datetime
) -> DriftResult | None:
    """An empty window, or one whose log has gaps; the latter is not trained on either until it is complete."""
    if answered and logged / answered < spec.drift.min_coverage:
        reason = f"{logged} of {answered} answered rows are logged, {spec.drift.min_coverage:.2%} needed"
        evidence = {**_span(window), "rows": logged, "answered_rows": answered, "failures": [reason]}
        record_check(decisions, spec.name, f"window:{window.name}", "quarantined", (reason,), evidence, now)
        return inconclusive(reason, logged)
    return None if logged else inconclusive("no predictions are logged in the window", 0)


def _span(window: Window) -> dict[str, str]:
    return {"start": window.start.isoformat(), "end": window.end.isoformat()}


def _broken(
    spec: ModelSpec,
    window: Window,
    rows: pd.DataFrame,
    lake: Lake,
    validator: Validator,
    decisions: DecisionLog,
    reports: dict[str, str],
    now: datetime,
    reference: pd.DataFrame,
) -> DriftResult | None:
    """The quarantine of a window that fails its data checks; either outcome is recorded, for training to know."""
    outcome = check_frame(spec, rows, validator, min_rows=1, target=False, reference=reference)
    title = f"{spec.name}: traffic {window.start.isoformat()} to {window.end.isoformat()}"
    reports["data_checks"] = write_checks(spec, lake, f"window-{window.name}", outcome, title)
    verdict: CheckVerdict = "passed" if outcome.passed else "quarantined"
    evidence = {
        **_span(window),
        "rows": len(rows),
        "failures": list(outcome.failures),
        "informs": list(outcome.unmet("info")),
        "report": reports["data_checks"],
    }
    reasons = outcome.failures or (f"{len(outcome.expectations)} expectations met",)
    record_check(decisions, spec.name, f"window:{window.name}", verdict, reasons, evidence, now)
    return None if outcome.passed else DriftResult("quarantined", reasons, len(rows), 0)


def _scorer(tracker: Tracker, files: ModelFiles, champion: ModelVersion) -> Scorer:
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        return files.read(tracker.download(champion.run_id, "model", Path(folder), without=("native",)))


def _trained_on(spec: ModelSpec, champion: ModelVersion, lake: Lake) -> pd.DataFrame:
    """The champion's training data, or a sample of it, in time order where it has one."""
    if "slipway.snapshot" not in champion.tags:
        raise NotFoundError(f"{spec.name}: version {champion.version} does not say what it was trained on")
    snapshot = lake.snapshot(spec.name, champion.tags["slipway.snapshot"])
    frame = plain_columns(spec, sample_rows(lake.read_snapshot(snapshot), spec.drift.max_rows))
    if spec.time is not None and spec.time in frame:
        frame = frame.sort_values(spec.time, kind="stable").reset_index(drop=True)
    return frame


def _judge(
    spec: ModelSpec,
    champion: ModelVersion,
    window: Window,
    rows: pd.DataFrame,
    trained_on: pd.DataFrame,
    scorer: Scorer,
    lake: Lake,
    reporter: DriftReporter,
    reports: dict[str, str],
) -> DriftResult:
    if len(rows) < spec.drift.min_rows:
        return inconclusive(f"{len(rows)} rows in the window, {spec.drift.min_rows} needed", len(rows))
    unknown = [name for name in spec.feature_names if name not in trained_on]
    if unknown:
        return inconclusive(f"version {champion.version} was trained without {', '.join(unknown)}", len(rows))
    alike = in_season(spec, trained_on, window, rows["ts"].dt.hour.to_numpy())
    reference = drift_frame(spec, alike, scorer.predict(alike))
    current = drift_frame(spec, rows, champion_answers(spec, champion, scorer, rows))
    kinds = _kinds(spec)
    columns = [Column(name, kinds[name], reference[name].to_numpy(), current[name].to_numpy()) for name in kinds]
    seed = int(champion.tags["slipway.snapshot"][:8], 16)
    ordered = spec.time is not None
    result = judge_window(columns, spec.drift, ordered=ordered, cycle=cycle_of(spec, alike), seed=seed)
    page, plain = reporter.report(reference, current, result)
    run = f"drift-{window.name}-v{champion.version}"
    reports["drift"] = lake.write_report(spec.name, run, "drift.html", page)
    reports["drift_json"] = lake.write_report(spec.name, run, "drift.json", plain)
    return result


def _kinds(spec: ModelSpec) -> dict[str, Any]:
    kinds: dict[str, Any] = {}
    for feature in spec.features:
        names = text_columns(feature.name) if feature.kind == "text" else (feature.name,)
        kinds |= dict.fromkeys(names, "category" if feature.kind == "category" else "number")
    return {**kinds, PREDICTION: "category" if spec.task == "classification" else "number"}


def _quality(
    spec: ModelSpec,
    champion: ModelVersion,
    window: Window,
    trained_on: pd.DataFrame,
    scorer: Scorer,
    lake: Lake,
    decisions: DecisionLog,
) -> Quality | None:
    """The champion's metric on labelled rows; None without labels.

    Where labels take their time, on the window as it was that long ago: of younger rows only some have a label yet,
    and those that come first are seldom like the rest.
    """
    delay = timedelta(hours=spec.retrain.label_delay_hours)
    labelled = labelled_rows(spec, lake, window.start - delay, window.end - delay)
    if delay and len(labelled):
        labelled = without_quarantined(labelled, quarantined_windows(decisions, spec.name))
    if labelled.empty or "slipway.metric_value" not in champion.tags:
        return None
    until = champion.tags.get("slipway.data_until", "")
    new = int((labelled["ts"] > datetime.fromisoformat(until)).sum()) if until else len(labelled)
    answers = champion_answers(spec, champion, scorer, labelled)
    if spec.metric.name == "log_loss" and answers.probabilities is None:
        return None
    truth = encode_target(spec.target.classes, labelled[spec.target.name].to_numpy())
    baseline = _baseline(spec, champion, window, trained_on, scorer)
    return measure_quality(spec.metric.name, truth, answers, baseline, new)


def _baseline(
    spec: ModelSpec, champion: ModelVersion, window: Window, trained_on: pd.DataFrame, scorer: Scorer
) -> float:
    """The champion's metric on the rows held out; for a model with seasons not better than it was in this season."""
    overall = float(champion.tags["slipway.metric_value"])
    if spec.time is None or spec.drift.season_days is None or spec.target.name not in trained_on:
        return overall
    alike = in_season(spec, trained_on, window)
    truth = encode_target(spec.target.classes, alike[spec.target.name].to_numpy())
    here = score(spec.metric.name, truth, scorer.predict(alike))
    return min(overall, here) if spec.metric.greater_is_better else max(overall, here)


def _estimate(
    spec: ModelSpec, champion: ModelVersion, rows: pd.DataFrame, trained_on: pd.DataFrame, scorer: Scorer
) -> dict[str, Any] | None:
    if spec.target.name not in trained_on or any(name not in trained_on for name in spec.feature_names):
        return None
    return estimate_quality(spec, trained_on, rows, champion_answers(spec, champion, scorer, rows), scorer)


def _outcome(
    spec: ModelSpec,
    champion: ModelVersion,
    window: Window,
    logged: int,
    result: DriftResult,
    quality: Quality | None,
    estimate: Mapping[str, Any] | None,
    reports: Mapping[str, str],
    decisions: DecisionLog,
) -> dict[str, Any]:
    span = _span(window)
    earlier = [
        decision.verdict
        for decision in decisions.recent(spec.name, "drift", limit=100)
        if decision.evidence.get("champion") == champion.version
        and (decision.evidence.get("start"), decision.evidence.get("end")) != (span["start"], span["end"])
    ]
    return {
        **result.as_dict(),
        **span,
        "model": spec.name,
        "champion": champion.version,
        "logged_rows": logged,
        "confirmed": confirmed(result.verdict, earlier, spec.drift),
        "quality": quality.as_dict() if quality else None,
        "estimate": dict(estimate) if estimate else None,
        "reports": dict(reports),
    }
