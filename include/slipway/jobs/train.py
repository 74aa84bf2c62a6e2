"""Fit every candidate of a model on a snapshot, each as an MLflow run, and store the best one's files.

Candidates are compared by cross-validation on the training rows; the held-out rows are left for the gate. A repeat
with the same key finds the runs of before, completes what is missing and trains nothing twice.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slipway.core.encoding import encode_target, feature_matrix
from slipway.core.metrics import GREATER_IS_BETTER, REPORTED, Predictions, score
from slipway.errors import DataError, NotFoundError, QuarantineError
from slipway.jobs.finetune import Fit, Start, find_start, fitter, goes_on
from slipway.jobs.holdout import TIME_COLUMN, Split, split
from slipway.jobs.quarantine import snapshot_check
from slipway.ports import DecisionLog, Lake, ModelFiles, ModelVersion, Registry, Run, Snapshot, Tracker
from slipway.spec import Candidate, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["default_key", "refit", "train"]

_log = logging.getLogger(__name__)
_FOLDS = 5
_FOLDS_BELOW_ROWS = 20_000  # above, one fold tells as much and costs a fifth
_CHECK_ROWS = 20_000
_SEED = 7
_GATE_DECISIONS = 200


@dataclass(frozen=True)
class _Fitted:
    candidate: Candidate
    estimator: Any
    metrics: Mapping[str, float]


def default_key(spec: ModelSpec, snapshot: Snapshot, code_commit: str, start: str | None = None) -> str:
    """The same data, code and candidates are the same training; candidates count by their source, committed or not.

    Args:
        start: the version that is fine-tuned.
    """
    parts = [spec.name, snapshot.sha256, code_commit, spec.metric.name, str(spec.gate.holdout_fraction)]
    for candidate in spec.candidates:
        parts += [candidate.name, _source(candidate.build)]
        if start is not None and candidate.finetune is not None:
            parts += [start, _source(candidate.finetune)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _source(function: Any) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # built in a shell, or a callable without source
        return repr(function)


def train(
    spec: ModelSpec,
    snapshot: Snapshot,
    *,
    lake: Lake,
    tracker: Tracker,
    registry: Registry,
    files: ModelFiles,
    decisions: DecisionLog | None,
    reason: str,
    code_commit: str,
    lock_sha256: str = "",
    key: str | None = None,
) -> dict[str, Any]:
    """Train, and say which run is the best candidate.

    Args:
        reason: why; unless it starts with `manual`, a snapshot is skipped that the champion was trained on, or of which
            the gate refused the very same training against this champion.
        lock_sha256: of the locked requirements, for whoever wants to reproduce the version.
        key: identity of this training; a second call with it changes nothing.

    Returns:
        `run_id` of the best candidate with `model`, `snapshot`, `reason`, `key`, `candidate`, `format`, and `metrics`
        by candidate; or `skipped` with why.

    Raises:
        QuarantineError: the snapshot failed its validation.
        DataError: the snapshot does not fit the spec.
    """
    _refuse_quarantined(spec, snapshot, decisions)
    champion = registry.by_alias(spec.name, "champion")
    if champion and champion.tags.get("slipway.snapshot") == snapshot.sha256 and not reason.startswith("manual"):
        return {"model": spec.name, "skipped": f"version {champion.version} was trained on this very data"}
    frame, start = None, None
    if champion and any(candidate.finetune for candidate in spec.candidates):
        frame = lake.read_snapshot(snapshot)
        start = find_start(spec, champion, frame, lake=lake, tracker=tracker, files=files)
    key = key or default_key(spec, snapshot, code_commit, start.version if start else None)
    runs = _runs_by_candidate(tracker, spec, key)
    best = next((run for run in runs.values() if run.finished and run.tags.get("slipway.best") == "true"), None)
    if best and not reason.startswith("manual") and _refused(spec, best, champion, decisions):
        against = f"against version {champion.version}" if champion else "as a first version"
        return {"model": spec.name, "skipped": f"the gate refused this very training {against}: run {best.run_id}"}
    if best is None:
        frame = lake.read_snapshot(snapshot) if frame is None else frame
        fitted = _fit_all(spec, frame, start)
        winner = _best(spec, fitted)
        tags = {**_tags(spec, snapshot, frame, key, reason, code_commit), "slipway.lock_sha256": lock_sha256}
        for one in sorted(fitted, key=lambda one: one is winner):  # the best one last: it marks the whole as done
            started = {"slipway.finetuned_from": start.version} if start and goes_on(one.candidate, start) else {}
            _record(tracker, files, spec, snapshot, frame, one, tags | started, runs, best=one is winner)
        runs = _runs_by_candidate(tracker, spec, key)
        best = runs[winner.candidate.name]
    else:
        _log.info("%s was trained on this snapshot before: run %s", spec.name, best.run_id)
    return {
        "model": spec.name,
        "snapshot": snapshot.sha256,
        "reason": reason,
        "key": key,
        "run_id": best.run_id,
        "candidate": best.tags["slipway.candidate"],
        "format": best.tags.get("slipway.format", ""),
        "metrics": {name: dict(run.metrics) for name, run in sorted(runs.items())},
    }


def refit(
    spec: ModelSpec, candidate: str, frame: pd.DataFrame, files: ModelFiles, folder: Path, start: Start | None = None
) -> Mapping[str, Any]:
    """Train one candidate as `train` does and write its files below `folder`; no run, nothing registered.

    Args:
        start: what it was fine-tuned from, if it was.

    Returns:
        what `files.write` says of them: format and sha256 among it.

    Raises:
        NotFoundError: the spec has no candidate of this name.
    """
    chosen = tuple(one for one in spec.candidates if one.name == candidate)
    if not chosen:
        known = ", ".join(one.name for one in spec.candidates)
        raise NotFoundError(f"{spec.name} has no candidate {candidate!r} any more, only {known}; check out its commit")
    fitted = _fit_all(spec.model_copy(update={"candidates": chosen}), frame, start)[0]
    return files.write(spec, fitted.estimator, frame.iloc[:_CHECK_ROWS], folder)


def _refuse_quarantined(spec: ModelSpec, snapshot: Snapshot, decisions: DecisionLog | None) -> None:
    check = snapshot_check(decisions, spec.name, snapshot.sha256) if decisions else None
    if check is not None and check.verdict == "quarantined":
        raise QuarantineError(f"snapshot {snapshot.sha256[:12]} is quarantined: {'; '.join(check.reasons)}")


def _refused(spec: ModelSpec, run: Run, champion: ModelVersion | None, decisions: DecisionLog | None) -> bool:
    """Whether the newest judgement of the run, against the champion of today, was a refusal."""
    against = champion.version if champion else None
    for one in decisions.recent(spec.name, "gate", limit=_GATE_DECISIONS) if decisions else ():
        if one.evidence.get("run_id") == run.run_id and one.evidence.get("champion_version") == against:
            return one.verdict == "fail"
    return False


def _runs_by_candidate(tracker: Tracker, spec: ModelSpec, key: str) -> dict[str, Run]:
    found = tracker.find_runs(spec.name, {"slipway.model": spec.name, "slipway.key": key})
    return {run.tags["slipway.candidate"]: run for run in reversed(found)}  # the oldest of duplicates


def _tags(
    spec: ModelSpec, snapshot: Snapshot, frame: pd.DataFrame, key: str, reason: str, code_commit: str
) -> dict[str, str]:
    until = frame[TIME_COLUMN].max() if TIME_COLUMN in frame and frame[TIME_COLUMN].notna().any() else None
    return {
        "slipway.model": spec.name,
        "slipway.key": key,
        "slipway.snapshot": snapshot.sha256,
        "slipway.snapshot_source": snapshot.source,
        "slipway.reason": reason,
        "slipway.code_commit": code_commit,
        "slipway.data_until": until.isoformat() if until is not None else "",
    }


def _fit_all(spec: ModelSpec, frame: pd.DataFrame, start: Start | None) -> list[_Fitted]:
    features = [(feature.name, feature.kind) for feature in spec.features]
    matrix = feature_matrix(features, frame)
    truth = encode_target(spec.target.classes, frame[spec.target.name].to_numpy())
    parts = split(spec, frame)
    counted = start.new[parts.training] if start else np.ones(len(parts.training), dtype=bool)
    fitted = []
    for candidate in spec.candidates:
        fit = fitter(spec, candidate, start)
        validation = _cross_validate(spec, fit, matrix[parts.training], truth[parts.training], parts, counted)
        estimator = fit(matrix[parts.training], truth[parts.training])
        guess = _predict(spec, estimator, matrix[parts.held_out])
        metrics = {f"holdout_{name}": value for name, value in _scores(spec, truth[parts.held_out], guess).items()}
        metrics |= {f"validation_{spec.metric.name}": validation, "training_rows": float(len(parts.training))}
        metrics["holdout_rows"] = float(len(parts.held_out))
        fitted.append(_Fitted(candidate, estimator, metrics))
        _log.info("%s: %s, validation %s %.4f", spec.name, candidate.name, spec.metric.name, validation)
    return fitted


def _cross_validate(
    spec: ModelSpec, fit: Fit, matrix: NDArray[Any], truth: NDArray[Any], parts: Split, counted: NDArray[np.bool_]
) -> float:
    """The spec's metric over the out-of-fold answers; for ordered rows the folds lie later than what they train on.

    Args:
        counted: (rows,) whose answers count; all do where no fold holds one of them.
    """
    answers, truths = [], []
    folds = _folds(spec, truth, parts.ordered)
    if not any(counted[fold].any() for _, fold in folds):
        counted = np.ones_like(counted)
    for training, fold in folds:
        validation = fold[counted[fold]]
        if not len(validation):
            continue
        estimator = fit(matrix[training], truth[training])
        answers.append(_predict(spec, estimator, matrix[validation]))
        truths.append(truth[validation])
    probabilities = [answer.probabilities for answer in answers]
    joined = None
    if all(one is not None and one.shape[1] == len(spec.target.classes or ()) for one in probabilities):
        joined = np.concatenate([one for one in probabilities if one is not None])
    guess = Predictions(np.concatenate([answer.values for answer in answers]), joined)
    return score(spec.metric.name, np.concatenate(truths), guess)


def _folds(spec: ModelSpec, truth: NDArray[Any], ordered: bool) -> Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    from sklearn.model_selection import KFold, StratifiedKFold

    rows = len(truth)
    if rows < 2 * _FOLDS:
        raise DataError(f"{spec.name}: {rows} training rows are too few; bring more data")
    if ordered and spec.time is not None:
        cut = rows - rows // _FOLDS
        return [(np.arange(cut), np.arange(cut, rows))]
    stratify = spec.task == "classification" and np.unique(truth, return_counts=True)[1].min() >= _FOLDS
    folds = (StratifiedKFold if stratify else KFold)(_FOLDS, shuffle=True, random_state=_SEED)
    found = list(folds.split(np.zeros((rows, 1)), truth))
    return found if rows < _FOLDS_BELOW_ROWS else found[:1]


def _predict(spec: ModelSpec, estimator: Any, matrix: NDArray[Any]) -> Predictions:
    values = np.asarray(estimator.predict(matrix)).ravel()
    if spec.task == "regression":
        return Predictions(values.astype(np.float64))
    return Predictions(
        values, np.asarray(estimator.predict_proba(matrix)) if hasattr(estimator, "predict_proba") else None
    )


def _scores(spec: ModelSpec, truth: NDArray[Any], guess: Predictions) -> dict[str, float]:
    names = {*REPORTED[spec.task], spec.metric.name}
    if guess.probabilities is None:
        names.discard("log_loss")
    return {name: score(name, truth, guess) for name in sorted(names)}


def _best(spec: ModelSpec, fitted: Sequence[_Fitted]) -> _Fitted:
    """By validation, the first of equals; candidates without a number lose."""
    sign = 1.0 if GREATER_IS_BETTER[spec.metric.name] else -1.0
    values = [sign * one.metrics[f"validation_{spec.metric.name}"] for one in fitted]
    if not any(np.isfinite(values)):
        raise DataError(f"{spec.name}: no candidate reached a finite {spec.metric.name} on this data")
    return fitted[int(np.nanargmax([value if np.isfinite(value) else np.nan for value in values]))]


def _record(
    tracker: Tracker,
    files: ModelFiles,
    spec: ModelSpec,
    snapshot: Snapshot,
    frame: pd.DataFrame,
    one: _Fitted,
    tags: Mapping[str, str],
    runs: Mapping[str, Run],
    *,
    best: bool,
) -> None:
    """One candidate's run; nothing happens when it is complete, and a half-written one is completed."""
    name = one.candidate.name
    known = runs.get(name)
    if known and known.finished and not best:
        return
    run_id = known.run_id if known else tracker.start_run(spec.name, name, {**tags, "slipway.candidate": name})
    about: dict[str, str] = {}
    if best:
        with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
            rows = frame.iloc[:_CHECK_ROWS]
            written = files.write(spec, one.estimator, rows, Path(folder))
            tracker.upload_model(spec, run_id, Path(folder))
        about = {"slipway.best": "true", "slipway.format": written["format"], "slipway.model_sha256": written["sha256"]}
        _log.info("%s: %s stored as %s (run %s)", spec.name, name, written["format"], run_id)
    tracker.log(run_id, params=_params(one.estimator), metrics=one.metrics, tags=about)
    tracker.log_dataset(run_id, spec, snapshot)
    tracker.finish(run_id)


def _params(estimator: Any) -> dict[str, Any]:
    """Flat parameters of an estimator and of its steps; those that are objects are left to their own parameters."""
    plain = (str, int, float, bool, type(None))
    given = estimator.get_params(deep=True) if hasattr(estimator, "get_params") else {}
    return {key: value for key, value in given.items() if isinstance(value, plain)}
