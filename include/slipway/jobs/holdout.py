"""Which rows are held out from training, the same rows whoever asks.

* Rows logged in production (column `ts`): the most recent part of them.
* A model with a `time` column: the most recent part of all rows.
* Otherwise by a hash of each row's content. A row then stays on its side in every later data set that holds it, so a
  champion was never trained on rows that it is later judged on, and duplicates never straddle the two sides.

Each part is `gate.holdout_fraction` of the rows. Rows of a retrain that are not logged (the reference) are split by
hash too, and their held-out side is left out of training, so that the rule above keeps holding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slipway.errors import DataError
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TIME_COLUMN", "Split", "split"]

TIME_COLUMN = "ts"  # reserved by the spec: no feature can have this name
_BUCKETS = 10_000


@dataclass(frozen=True)
class Split:
    """Row positions; `ordered` when the held-out rows are in time order and later than those trained on."""

    training: NDArray[np.intp]
    held_out: NDArray[np.intp]
    ordered: bool


def split(spec: ModelSpec, frame: pd.DataFrame) -> Split:
    """The split of a snapshot's rows.

    Raises:
        DataError: a side would be empty, or the training rows lack a class.
    """
    fraction = spec.gate.holdout_fraction
    if TIME_COLUMN in frame and frame[TIME_COLUMN].notna().any():
        logged = np.flatnonzero(frame[TIME_COLUMN].notna().to_numpy())
        logged = logged[np.argsort(frame[TIME_COLUMN].to_numpy()[logged], kind="stable")]
        earlier, held_out = _tail(logged, fraction)
        reference = np.flatnonzero(frame[TIME_COLUMN].isna().to_numpy())
        result = Split(np.concatenate([reference[~_by_hash(spec, frame)[reference]], earlier]), held_out, True)
    elif spec.time is not None:
        result = Split(*_tail(np.argsort(frame[spec.time].to_numpy(), kind="stable"), fraction), ordered=True)
    else:
        hashed = _by_hash(spec, frame)
        result = Split(np.flatnonzero(~hashed), np.flatnonzero(hashed), False)
    return _checked(spec, frame, result)


def _tail(rows: NDArray[np.intp], fraction: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    count = max(1, round(len(rows) * fraction))
    return rows[:-count], rows[-count:]


def _by_hash(spec: ModelSpec, frame: pd.DataFrame) -> NDArray[np.bool_]:
    import pandas as pd

    columns = frame[[*spec.feature_names, spec.target.name]]
    hashed = pd.util.hash_pandas_object(columns, index=False).to_numpy()
    return np.asarray(hashed % _BUCKETS < spec.gate.holdout_fraction * _BUCKETS)


def _checked(spec: ModelSpec, frame: pd.DataFrame, result: Split) -> Split:
    if not len(result.training) or not len(result.held_out):
        raise DataError(f"{spec.name}: {len(frame)} rows are too few to hold some out; bring more data")
    if spec.target.classes is not None:
        seen = set(frame[spec.target.name].iloc[result.training].astype(str))
        absent = [name for name in spec.target.classes if name not in seen]
        if absent:
            raise DataError(f"{spec.name}: no training row is {', '.join(absent)}; bring more data")
    return result
