"""Judge the best candidate against the champion on the same held-out rows, and register it if it passes.

The evidence is a decision, MLflow metrics and tags of the run, and a page in the lake that shows both side by side.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slipway.core.encoding import NUMERIC_KINDS, encode_target
from slipway.core.gate import GateResult, judge, judge_first, shown_worse
from slipway.core.intervals import metric_intervals
from slipway.core.metrics import REPORTED, score
from slipway.core.recovery import Recovery
from slipway.core.verdict import Verdict
from slipway.errors import ConflictError, NotFoundError
from slipway.jobs.gate_page import gate_page
from slipway.jobs.holdout import TIME_COLUMN, Split, split
from slipway.ports import Decision, DecisionLog, Lake, ModelFiles, ModelVersion, Registry, Scorer, Tracker
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["gate", "register"]

_log = logging.getLogger(__name__)
_COPIED_TAGS = (
    "slipway.snapshot",
    "slipway.snapshot_source",
    "slipway.candidate",
    "slipway.finetuned_from",
    "slipway.key",
    "slipway.code_commit",
    "slipway.data_until",
    "slipway.format",
    "slipway.model_sha256",
    "slipway.lock_sha256",
)


def gate(
    spec: ModelSpec,
    run_id: str,
    reason: str,
    *,
    lake: Lake,
    tracker: Tracker,
    registry: Registry,
    files: ModelFiles,
    decisions: DecisionLog,
    now: datetime,
) -> dict[str, Any]:
    """The gate's evidence: `verdict` is `pass` or `fail`, `reasons` say why, the numbers are beside them.

    The same run judged again against the same champion for the same reason gives the recorded evidence.
    """
    champion = registry.by_alias(spec.name, "champion")
    against = champion.version if champion else "none"
    key = f"gate:{spec.name}:{run_id}:{against}:{reason}"
    known = next((one for one in decisions.recent(spec.name, "gate", limit=200) if one.key == key), None)
    if known is not None:
        return dict(known.evidence)
    run = tracker.run(run_id)
    snapshot = lake.snapshot(spec.name, run.tags["slipway.snapshot"])
    frame = lake.read_snapshot(snapshot)
    parts = split(spec, frame)
    scorers = {"challenger": _scorer(tracker, files, run_id)}
    if champion is not None:
        scorers = {"champion": _scorer(tracker, files, champion.run_id), **scorers}
    rows = frame.iloc[parts.held_out]
    truth = _truth(spec, rows)
    answers = {name: scorer.predict(rows) for name, scorer in scorers.items()}
    seed = int(snapshot.sha256[:8], 16)
    if champion is None:
        result, older = judge_first(spec.metric, truth, answers["challenger"], reason), None
    else:
        older = _older_rows(spec, champion, frame, parts, scorers, lake)
        result = judge(
            spec.metric,
            spec.gate,
            truth,
            answers["champion"],
            answers["challenger"],
            reason,
            ordered=parts.ordered,
            slices=_slices(spec, rows),
            recovery=_recovery(spec, champion, reason, older),
            seed=seed,
        )
    metrics = [*dict.fromkeys((spec.metric.name, *REPORTED[spec.task]))]
    page = gate_page(
        spec,
        result,
        metric_intervals(metrics, truth, answers, block=result.block_rows, seed=seed),
        champion=champion.version if champion else None,
        older_rows=older,
        candidate=run.tags["slipway.candidate"],
        run_id=run_id,
        snapshot=snapshot.sha256,
        at=now,
    )
    folder = f"gate-{run_id[:12]}-against-{'v' + against if champion else against}-{reason}"
    evidence = {
        **result.as_dict(),
        "run_id": run_id,
        "snapshot": snapshot.sha256,
        "champion_version": champion.version if champion else None,
        "older_rows": older,
        "report": lake.write_report(spec.name, folder, "champion_beside_challenger.html", page),
    }
    _log.info("%s gate: %s, %s", spec.name, result.verdict.value, "; ".join(result.reasons))
    _log.info("%s gate report: %s", spec.name, evidence["report"])
    _note(tracker, run_id, result, evidence)
    decisions.record(Decision(key, spec.name, "gate", result.verdict.value, result.reasons, evidence, now))
    return evidence


def _scorer(tracker: Tracker, files: ModelFiles, run_id: str) -> Scorer:
    """The logged model of a run: from its ONNX or skops file, never unpickled."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        return files.read(tracker.download(run_id, "model", Path(folder), without=("native",)))


def _truth(spec: ModelSpec, rows: pd.DataFrame) -> NDArray[Any]:
    return encode_target(spec.target.classes, rows[spec.target.name].to_numpy())


def _older_rows(
    spec: ModelSpec,
    champion: ModelVersion,
    frame: pd.DataFrame,
    parts: Split,
    scorers: Mapping[str, Scorer],
    lake: Lake,
) -> dict[str, float] | None:
    """How both do on what the champion's data set holds and neither was trained on; None where there are no such rows.

    `rows`, the metric of both, and `worse`: 1 if the challenger is shown to be worse there, else 0.
    """
    try:
        before = lake.read_snapshot(lake.snapshot(spec.name, champion.tags["slipway.snapshot"]))
    except (KeyError, NotFoundError):
        return None
    columns = [*spec.feature_names, spec.target.name]
    if TIME_COLUMN not in frame or not before[columns].equals(frame[columns].iloc[: len(before)]):
        return None  # no retrain from the log: its rows are not the champion's rows and newer ones
    used = np.concatenate([parts.training, parts.held_out, split(spec, before).training])
    rows = frame.iloc[np.setdiff1d(np.arange(len(before)), used)]
    if rows.empty:
        return None
    truth = _truth(spec, rows)
    answers = {name: scorer.predict(rows) for name, scorer in scorers.items()}
    worse = shown_worse(spec.metric, spec.gate, truth, answers["champion"], answers["challenger"])
    values = {name: score(spec.metric.name, truth, answer) for name, answer in answers.items()}
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return {"rows": float(len(rows)), **finite, "worse": float(worse)}


def _recovery(
    spec: ModelSpec, champion: ModelVersion, reason: str, older: Mapping[str, float] | None
) -> Recovery | None:
    """A retrain on logged labels has to heal; other reasons bring data of which nobody said that it differs.

    A challenger that does worse on older rows learnt what contradicts them: the world has changed, or labels are wrong.
    Then, and where there are no older rows to tell, healing has to be shown.
    """
    baseline = champion.tags.get("slipway.metric_value")
    if reason != "drift" or baseline is None:
        return None
    return Recovery(float(baseline), spec.retrain.loss_band, proof=older is None or bool(older["worse"]))


def register(
    spec: ModelSpec,
    run_id: str,
    evidence: Mapping[str, Any],
    *,
    tracker: Tracker,
    registry: Registry,
) -> ModelVersion:
    """A version with the alias `challenger`; the version of this run is found again by a repeat.

    Raises:
        ConflictError: the evidence is of another run, or refuses this one.
    """
    if evidence.get("run_id") != run_id or evidence.get("verdict") != Verdict.PASS.value:
        raise ConflictError(f"{spec.name}: the gate did not pass run {run_id}; nothing is registered")
    run = tracker.run(run_id)
    tags = {name: run.tags[name] for name in _COPIED_TAGS if name in run.tags}
    tags |= {
        "slipway.model": spec.name,
        "slipway.reason": str(evidence["reason"]),
        "slipway.metric": str(evidence["metric"]),
        "slipway.metric_value": str(evidence["challenger"]),
        "slipway.gate": json.dumps(dict(evidence)),
    }
    version = tracker.register(spec.name, run_id, tags, spec.description)
    if not version.aliases:  # a repeat after the release must not call the champion a challenger again
        registry.set_alias(spec.name, "challenger", version.version)
    _log.info("%s: version %s registered from run %s", spec.name, version.version, run_id)
    return registry.version(spec.name, version.version)


def _slices(spec: ModelSpec, rows: pd.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """Masks by name: one per category, or per quarter of a number's range of ranks."""
    masks: dict[str, NDArray[np.bool_]] = {}
    kinds = {feature.name: feature.kind for feature in spec.features}
    for name in spec.gate.slices:
        if kinds[name] in NUMERIC_KINDS:
            values = rows[name].to_numpy(dtype=float, na_value=np.nan)
            edges = np.nanquantile(values, [0.25, 0.5, 0.75]) if np.isfinite(values).any() else np.zeros(3)
            quarter = np.searchsorted(edges, values, "left")
            masks |= {f"{name} quarter {index + 1}": quarter == index for index in range(4)}
        else:
            texts = rows[name].astype(str).to_numpy()
            masks |= {f"{name}={value}": texts == value for value in sorted(set(texts))}
    return masks


def _note(tracker: Tracker, run_id: str, result: GateResult, evidence: Mapping[str, Any]) -> None:
    """The evidence on the run, for whoever looks in MLflow."""
    numbers = {
        "gate_challenger": result.challenger,
        "gate_champion": result.champion,
        "gate_improvement": result.improvement,
        "gate_lower_bound": result.lower_bound,
        "gate_margin": result.margin,
        "gate_rows": float(result.rows),
    }
    metrics = {name: value for name, value in numbers.items() if value is not None and math.isfinite(value)}
    tags = {"slipway.gate": result.verdict.value, "slipway.gate_reasons": "; ".join(result.reasons)[:5000]}
    tags |= {"slipway.gate_champion": str(evidence["champion_version"]), "slipway.gate_report": str(evidence["report"])}
    tracker.log(run_id, metrics=metrics, tags=tags)
