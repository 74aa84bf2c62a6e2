"""Take a snapshot of a model's data, and validate it before anything is trained on it."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from slipway.core.encoding import NUMERIC_KINDS
from slipway.errors import DataError, QuarantineError
from slipway.jobs.data_checks import check_frame, report_page
from slipway.jobs.quarantine import CheckVerdict, record_check
from slipway.ports import DecisionLog, Lake, Snapshot, Validation, Validator
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["plain_columns", "snapshot", "validate", "write_checks"]

_log = logging.getLogger(__name__)


def snapshot(spec: ModelSpec, lake: Lake) -> Snapshot:
    """Store the loader's rows under the hash of their content; the same rows give the same snapshot.

    Raises:
        DataError: the loader fails or returns no frame.
    """
    try:
        frame = spec.loader()
    except Exception as error:  # a loader is the user's code and may raise anything
        raise DataError(f"{spec.name}: its loader failed: {type(error).__name__}: {error}") from error
    if not hasattr(frame, "columns"):
        raise DataError(f"{spec.name}: its loader returned {type(frame).__name__} instead of a pandas DataFrame")
    wanted = [*spec.feature_names, spec.target.name, *([spec.time] if spec.time else [])]
    extra = [str(name) for name in frame.columns if name not in wanted]
    if extra:
        _log.warning("%s: columns that the spec does not name are left out: %s", spec.name, ", ".join(extra))
    taken = lake.write_snapshot(
        spec.name, plain_columns(spec, frame[[name for name in wanted if name in frame.columns]]), "loader"
    )
    _log.info("%s: snapshot %s with %d rows", spec.name, taken.sha256[:12], taken.rows)
    return taken


def plain_columns(spec: ModelSpec, frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers as float64, everything else as it is, so that equal data has one form; oddities are left to be found."""
    frame = frame.reset_index(drop=True)
    numeric = [feature.name for feature in spec.features if feature.kind in NUMERIC_KINDS]
    if spec.target.classes is None:
        numeric.append(spec.target.name)
    for name in numeric:
        if name in frame.columns and frame[name].dtype.kind in "iuf":
            frame[name] = frame[name].to_numpy(dtype=float, na_value=float("nan"))
    if spec.target.classes is not None and spec.target.name in frame.columns:
        frame[spec.target.name] = frame[spec.target.name].astype(object)
    return frame


def validate(
    spec: ModelSpec, taken: Snapshot, *, lake: Lake, validator: Validator, decisions: DecisionLog, now: datetime
) -> dict[str, Any]:
    """Check a snapshot against the spec and write the report; what fails is never trained on.

    Raises:
        QuarantineError: an expectation was not met; the message names them and the report.
    """
    outcome = check_frame(spec, lake.read_snapshot(taken), validator, min_rows=spec.data.min_rows, target=True)
    url = write_checks(spec, lake, f"data-{taken.sha256[:12]}", outcome, f"{spec.name}: data {taken.sha256[:12]}")
    verdict: CheckVerdict = "passed" if outcome.passed else "quarantined"
    evidence = {
        "sha256": taken.sha256,
        "rows": taken.rows,
        "expectations": len(outcome.expectations),
        "failures": list(outcome.failures),
        "warnings": list(outcome.warnings),
        "report": url,
    }
    reasons = outcome.failures or _passed(outcome)
    record_check(decisions, spec.name, taken.sha256, verdict, reasons, evidence, now)
    _log.info("%s: snapshot %s %s, report %s", spec.name, taken.sha256[:12], verdict, url)
    if not outcome.passed:
        raise QuarantineError(
            f"{spec.name}: snapshot {taken.sha256[:12]} is quarantined: {'; '.join(reasons)}; see {url}"
        )
    return {**evidence, "verdict": verdict}


def _passed(outcome: Validation) -> tuple[str, ...]:
    met = sum(one.met for one in outcome.expectations)
    for warning in outcome.warnings:
        _log.warning("warning: %s", warning)
    return (f"{met} expectations met", *(f"warning: {one}" for one in outcome.warnings))


def write_checks(spec: ModelSpec, lake: Lake, run: str, outcome: Validation, title: str) -> str:
    plain = {"rows": outcome.rows, "passed": outcome.passed, "expectations": [asdict(e) for e in outcome.expectations]}
    lake.write_report(spec.name, run, "data_checks.json", json.dumps(plain, indent=1))
    return lake.write_report(spec.name, run, "data_checks.html", report_page(spec, outcome, title))
