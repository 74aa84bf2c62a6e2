"""Judge the best candidate against the champion on the same held-out rows, and register it if it passes."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slipway.core.encoding import NUMERIC_KINDS, encode_target
from slipway.core.gate import GateResult, judge, judge_first
from slipway.core.metrics import Predictions
from slipway.core.verdict import Verdict
from slipway.errors import ConflictError
from slipway.jobs.holdout import split
from slipway.ports import Decision, DecisionLog, Lake, ModelFiles, ModelVersion, Registry, Tracker
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["gate", "load_scorer_answers", "register"]

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
    snapshot = lake.snapshot(spec.name, tracker.run(run_id).tags["slipway.snapshot"])
    frame = lake.read_snapshot(snapshot)
    parts = split(spec, frame)
    rows = frame.iloc[parts.held_out]
    truth = encode_target(spec.target.classes, rows[spec.target.name].to_numpy())
    challenger = load_scorer_answers(tracker, files, run_id, rows)
    if champion is None:
        result = judge_first(spec.metric, truth, challenger, reason)
    else:
        result = judge(
            spec.metric,
            spec.gate,
            truth,
            load_scorer_answers(tracker, files, champion.run_id, rows),
            challenger,
            reason,
            ordered=parts.ordered,
            slices=_slices(spec, rows),
            seed=int(snapshot.sha256[:8], 16),
        )
    evidence = {
        **result.as_dict(),
        "run_id": run_id,
        "snapshot": snapshot.sha256,
        "champion_version": champion.version if champion else None,
    }
    _log.info("%s gate: %s, %s", spec.name, result.verdict.value, "; ".join(result.reasons))
    _note(tracker, run_id, result, evidence)
    decisions.record(Decision(key, spec.name, "gate", result.verdict.value, result.reasons, evidence, now))
    return evidence


def load_scorer_answers(tracker: Tracker, files: ModelFiles, run_id: str, rows: pd.DataFrame) -> Predictions:
    """What the logged model of a run answers to `rows`: from its ONNX or skops file, never unpickled."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        return files.read(tracker.download(run_id, "model", Path(folder), without=("native",))).predict(rows)


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
    }
    metrics = {name: value for name, value in numbers.items() if value is not None}
    tags = {"slipway.gate": result.verdict.value, "slipway.gate_reasons": "; ".join(result.reasons)[:5000]}
    tracker.log(run_id, metrics=metrics, tags={**tags, "slipway.gate_champion": str(evidence["champion_version"])})
