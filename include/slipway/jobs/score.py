"""Score a Parquet data set of any size with one version of a model.

The input is taken in pieces of about a million rows; each piece becomes one output file that appears whole. The job's
folder is named by the version and the input's fingerprint, so a run that was killed goes on where it was, and a repeat
finds everything done. A row that cannot be predicted does not stop the job: it gets no prediction and says why.
"""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway.core.faults import fault_point
from slipway.core.score_rows import problems, wrong_columns
from slipway.errors import DataError, NotFoundError
from slipway.ports import ModelFiles, ModelVersion, Registry, Scorer, ScoreStore, Tracker
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Scoring", "score"]

_log = logging.getLogger(__name__)
_PREDICTION, _PROBLEM = "prediction", "problem"


@dataclass(frozen=True)
class Scoring:
    """How far a job is; `seconds` of this run."""

    rows: int
    total_rows: int
    seconds: float


def score(
    spec: ModelSpec,
    url: str,
    *,
    store: ScoreStore,
    registry: Registry,
    tracker: Tracker,
    files: ModelFiles,
    version: str | None = None,
    keep: Sequence[str] = (),
    probabilities: bool = False,
    progress: Callable[[Scoring], None] | None = None,
) -> dict[str, Any]:
    """Predict every row of a Parquet file or folder.

    Args:
        version: of the model; the champion without one.
        keep: columns of the input that the output carries beside the predictions, such as a key.
        probabilities: one more column for each class, `probability_<class>`.

    Returns:
        `output` (where the files are), `rows`, `problems` (rows without a prediction), `model`, `version`, `seconds`.

    Raises:
        NotFoundError: there is no such version.
        DataError: the input cannot be read, lacks a column, or changed while it was scored.
    """
    began = time.monotonic()
    chosen = registry.version(spec.name, version) if version else registry.by_alias(spec.name, "champion")
    if chosen is None:
        raise NotFoundError(f"{spec.name} has no champion to score with; run `slipway run {spec.name}_data`")
    found = store.survey(url)
    _check_columns(spec, found.columns, keep, url)
    folder = f"scores/model={spec.name}/{_job(chosen, found.fingerprint, keep, probabilities)}"
    result = {"model": spec.name, "version": chosen.version, "output": store.uri(folder)}
    known = store.manifest(folder)
    if known is not None:
        return {**result, "rows": known["rows"], "problems": known["problems"], "seconds": 0.0}
    done = dict(store.done(folder))
    total, rows = sum(part.rows for part in found.parts), sum(one.rows for one in done.values())
    if rows:
        _log.info("%s: %s of %s rows were scored before", spec.name, f"{rows:,}", f"{total:,}")
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        scorer = files.read(tracker.download(chosen.run_id, "model", Path(scratch), without=("native",)))
        for part in found.parts:
            if part.name not in done:
                frames = store.frames(part, spec.feature_names, keep)
                done[part.name] = store.write(folder, part.name, _scored(spec, scorer, frames, keep, probabilities))
                fault_point("scored")
                rows += done[part.name].rows
            (progress or _note)(Scoring(rows, total, time.monotonic() - began))
    if store.survey(url).fingerprint != found.fingerprint:
        raise DataError(f"{url} changed while it was scored; what was written is not used: run it again")
    broken = sum(one.problems for one in done.values())
    store.finish(folder, {**result, "rows": rows, "problems": broken, "input": url, "fingerprint": found.fingerprint})
    if broken:
        _log.warning("%s: %s of %s rows could not be predicted", spec.name, f"{broken:,}", f"{rows:,}")
    return {**result, "rows": rows, "problems": broken, "seconds": time.monotonic() - began}


def _note(at: Scoring) -> None:
    _log.info("%s of %s rows scored after %.1f s", f"{at.rows:,}", f"{at.total_rows:,}", at.seconds)


def _job(version: ModelVersion, fingerprint: str, keep: Sequence[str], probabilities: bool) -> str:
    identity = "\n".join([version.run_id, fingerprint, *keep, str(probabilities)])
    return f"v{version.version}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def _check_columns(spec: ModelSpec, types: Mapping[str, str], keep: Sequence[str], url: str) -> None:
    wrong = wrong_columns(spec.features, types)
    wrong += [f"{name}, to be kept, is missing" for name in keep if name not in types]
    made = {_PREDICTION, _PROBLEM, *(f"probability_{name}" for name in spec.target.classes or ())}
    wrong += [f"{name} cannot be kept: the output has a column of that name" for name in keep if name in made]
    if wrong:
        raise DataError(f"{url} cannot be scored by {spec.name}: {'; '.join(wrong)}")


def _scored(
    spec: ModelSpec, scorer: Scorer, frames: Iterator[pd.DataFrame], keep: Sequence[str], probabilities: bool
) -> Iterator[pd.DataFrame]:
    import pandas as pd

    for frame in frames:
        said, good = problems(spec.features, {name: frame[name].to_numpy() for name in spec.feature_names})
        whole = bool(good.all())
        answers = scorer.predict(frame if whole else frame[good]) if good.any() else None
        out = frame[list(keep)].copy()
        classes = spec.target.classes
        values = np.full(len(frame), np.nan) if classes is None else np.full(len(frame), -1, dtype=np.int64)
        if answers is not None:
            values[good] = answers.values
        out[_PREDICTION] = (
            values if classes is None else pd.Categorical.from_codes(values, categories=pd.Index(classes))
        )
        if probabilities and classes is not None:
            shares = np.full((len(frame), len(classes)), np.nan, dtype=np.float32)
            if answers is not None and answers.probabilities is not None:
                shares[good] = answers.probabilities
            for index, name in enumerate(classes):
                out[f"probability_{name}"] = shares[:, index]
        none = pd.Categorical.from_codes(np.full(len(frame), -1), categories=pd.Index([""]))
        out[_PROBLEM] = none if whole else pd.Categorical(said)
        yield out
