"""Train a registered version once more from its snapshot, and compare the model file and its answers.

The same data, code and locked requirements give the same file, bit for bit. Where they do not, what differs from the
version's record is said. Nothing is stored: no run, no version, no file outside of a temporary folder.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slipway.core.metrics import Predictions
from slipway.errors import DataError, NotFoundError
from slipway.jobs.finetune import Start, find_start
from slipway.jobs.holdout import split
from slipway.jobs.train import refit
from slipway.ports import Lake, ModelFiles, ModelVersion, Registry, Snapshot, Tracker
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Reproduction", "reproduce"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reproduction:
    """What came of it.

    Attributes:
        identical: the model files are the same, and so are all answers.
        recorded_sha256, sha256: of the version's model file and of the new one.
        rows: held-out rows that both answered.
        differing_rows: rows with another class, or another number.
        largest_difference: of the numbers, or of the probabilities.
        reasons: what differs from the version's record, or that nothing does.
    """

    model: str
    version: str
    identical: bool
    candidate: str
    snapshot: str
    recorded_sha256: str
    sha256: str
    rows: int
    differing_rows: int
    largest_difference: float
    reasons: tuple[str, ...]


def reproduce(
    spec: ModelSpec,
    version: str,
    *,
    lake: Lake,
    tracker: Tracker,
    registry: Registry,
    files: ModelFiles,
    code_commit: str,
    lock_sha256: str,
) -> dict[str, Any]:
    """The fields of a `Reproduction`.

    Args:
        code_commit, lock_sha256: of the code and the environment that train now.

    Raises:
        NotFoundError: no such version, or its snapshot, its files or its candidate are gone; the message says which.
        DataError: the version does not say what it was trained on.
    """
    known = registry.version(spec.name, version)
    for tag in ("slipway.snapshot", "slipway.candidate", "slipway.model_sha256"):
        if not known.tags.get(tag):
            raise DataError(f"{spec.name} version {version} has no tag {tag}; it cannot be reproduced")
    frame = lake.read_snapshot(_snapshot(spec, known, lake))
    rows = frame.iloc[split(spec, frame).held_out]
    with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
        start = _start(spec, known, registry, frame, lake=lake, tracker=tracker, files=files)
        written = refit(spec, known.tags["slipway.candidate"], frame, files, Path(folder) / "new", start)
        again = files.read(Path(folder) / "new" / "model").predict(rows)
        stored = tracker.download(known.run_id, "model", Path(folder) / "old", without=("native",))
        before = files.read(stored).predict(rows)
    differing, largest = _compare(before, again)
    sha256 = str(written["sha256"])
    identical = sha256 == known.tags["slipway.model_sha256"] and not differing and largest == 0.0
    outcome = Reproduction(
        model=spec.name,
        version=known.version,
        identical=identical,
        candidate=known.tags["slipway.candidate"],
        snapshot=known.tags["slipway.snapshot"],
        recorded_sha256=known.tags["slipway.model_sha256"],
        sha256=sha256,
        rows=len(rows),
        differing_rows=differing,
        largest_difference=largest,
        reasons=_reasons(known, identical, written["format"], code_commit, lock_sha256),
    )
    _log.info("%s version %s: %s", spec.name, version, "; ".join(outcome.reasons))
    return asdict(outcome)


def _snapshot(spec: ModelSpec, version: ModelVersion, lake: Lake) -> Snapshot:
    sha256 = version.tags["slipway.snapshot"]
    try:
        return lake.snapshot(spec.name, sha256)
    except NotFoundError as error:
        gone = f"its snapshot {sha256[:12]} is not in the lake any more; restore it from a backup"
        raise NotFoundError(f"{spec.name} version {version.version} cannot be reproduced: {gone}") from error


def _start(
    spec: ModelSpec,
    version: ModelVersion,
    registry: Registry,
    frame: pd.DataFrame,
    *,
    lake: Lake,
    tracker: Tracker,
    files: ModelFiles,
) -> Start | None:
    """What the version was fine-tuned from, if it was."""
    earlier = version.tags.get("slipway.finetuned_from")
    if not earlier:
        return None
    champion = registry.version(spec.name, earlier)
    found = find_start(spec, champion, frame, lake=lake, tracker=tracker, files=files)
    if found is None:
        gone = f"version {earlier}, which it was fine-tuned from, cannot be gone on from any more"
        raise NotFoundError(f"{spec.name} version {version.version} cannot be reproduced: {gone}")
    return found


def _compare(before: Predictions, again: Predictions) -> tuple[int, float]:
    """Rows with another answer, and the largest difference of the numbers or probabilities."""
    differing = int((before.values != again.values).sum())
    left, right = before.probabilities, again.probabilities
    if (left is None) != (right is None):
        return len(before.values), float("inf")
    if left is None or right is None:
        left, right = before.values, again.values
    return differing, float(np.abs(left.astype(float) - right.astype(float)).max(initial=0.0))


def _reasons(
    version: ModelVersion, identical: bool, written_format: str, code_commit: str, lock_sha256: str
) -> tuple[str, ...]:
    """Every known difference from the version's record; without one the training itself is not repeatable."""
    tags, found = version.tags, []
    if written_format != tags.get("slipway.format", written_format):
        found.append(f"the model is stored as {written_format} now, not as {tags['slipway.format']}")
    if code_commit != tags.get("slipway.code_commit", ""):
        found.append(
            f"other code: {code_commit[:12]} now, {tags.get('slipway.code_commit', '')[:12] or 'unknown'} then"
        )
    elif code_commit.endswith("-dirty"):
        found.append("the code has changes that no commit holds, now as then; they may differ")
    if not tags.get("slipway.lock_sha256"):
        found.append("the version does not say which locked requirements it was trained with")
    elif lock_sha256 != tags["slipway.lock_sha256"]:
        found.append(f"other locked requirements: {lock_sha256[:12]} now, {tags['slipway.lock_sha256'][:12]} then")
    if identical:
        return ("the same model file and the same answers", *found)
    if not found:
        found.append(
            "the same data, code and locked requirements: the training is not repeatable, see its random seeds"
        )
    return tuple(found)
