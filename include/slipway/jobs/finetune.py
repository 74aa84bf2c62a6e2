"""What a fine-tuned candidate goes on from: the champion's estimator, and the rows that it has not seen.

The champion knows the rows that it was trained on. Validation therefore counts the other ones only, for all candidates
alike, or the fine-tuned one would win by what it remembers. Rows held out for the gate were never trained on
(`jobs/holdout.py`), so there nothing changes.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slipway.errors import ArtefactError, DataError, NotFoundError
from slipway.jobs.holdout import split
from slipway.ports import Lake, ModelFiles, ModelVersion, Tracker
from slipway.spec import Candidate, ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Fit", "Start", "find_start", "fitter", "goes_on"]

_log = logging.getLogger(__name__)
_MIN_NEW_ROWS = 20  # fewer tell no candidate from another
Fit = Callable[[NDArray[Any], NDArray[Any]], Any]


@dataclass(frozen=True)
class Start:
    """A champion to go on from; `new` marks the rows of the frame that it was not trained on."""

    version: str
    candidate: str
    estimator: Any
    new: NDArray[np.bool_]


def find_start(
    spec: ModelSpec,
    champion: ModelVersion | None,
    frame: pd.DataFrame,
    *,
    lake: Lake,
    tracker: Tracker,
    files: ModelFiles,
) -> Start | None:
    """The champion, if the candidate that made it can be fine-tuned and there is something new to learn."""
    made_by = champion.tags.get("slipway.candidate") if champion else None
    if champion is None or not any(one.name == made_by and one.finetune for one in spec.candidates):
        return None
    try:
        known = lake.read_snapshot(lake.snapshot(spec.name, champion.tags["slipway.snapshot"]))
        new = ~np.isin(_hashes(spec, frame), _hashes(spec, known))
        training = split(spec, frame).training
        if (count := int(new[training].sum())) < _MIN_NEW_ROWS:
            _log.info("%s: %d new rows are too few to fine-tune on; training anew", spec.name, count)
            return None
        with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
            model = tracker.download(champion.run_id, "model", Path(folder))
            estimator = files.read_estimator(spec, model)
    except (ArtefactError, NotFoundError, KeyError) as error:
        _log.warning("%s: version %s cannot be fine-tuned (%s); training anew", spec.name, champion.version, error)
        return None
    _log.info("%s: %s goes on from version %s with %d new rows", spec.name, made_by, champion.version, count)
    return Start(champion.version, str(made_by), estimator, new)


def goes_on(candidate: Candidate, start: Start | None) -> bool:
    """Whether a candidate is fine-tuned rather than trained anew."""
    return start is not None and candidate.finetune is not None and candidate.name == start.candidate


def fitter(spec: ModelSpec, candidate: Candidate, start: Start | None) -> Fit:
    """How a candidate is fitted: on from the champion where it can be, otherwise anew."""
    finetune = candidate.finetune
    if start is None or finetune is None or not goes_on(candidate, start):
        return lambda rows, target: candidate.build().fit(rows, target)

    def go_on(rows: NDArray[Any], target: NDArray[Any]) -> Any:
        try:
            return finetune(copy.deepcopy(start.estimator), rows, target)
        except Exception as error:  # the user's code may raise anything
            raise DataError(
                f"{spec.name}: finetune of {candidate.name} failed: {type(error).__name__}: {error}"
            ) from error

    return go_on


def _hashes(spec: ModelSpec, frame: pd.DataFrame) -> NDArray[np.uint64]:
    import pandas as pd

    columns = frame[[*spec.feature_names, spec.target.name]]
    return np.asarray(pd.util.hash_pandas_object(columns, index=False).to_numpy(), dtype=np.uint64)
