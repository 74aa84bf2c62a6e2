"""The part of a reference that a window may be compared with: its own time of the year, and its hours of the day.

A plant in December is not like itself in June. With `drift.season_days` a window is held against the reference's rows
of the same season only, whatever their year, and against the same hours where the window does not hold all of them.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from slipway.jobs.quarantine import Window
from slipway.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["cycle_of", "in_season"]

_log = logging.getLogger(__name__)
_DAYS_A_YEAR = 365.25
_HOURS_A_DAY = 24


def in_season(
    spec: ModelSpec, frame: pd.DataFrame, window: Window, hours: NDArray[np.intp] | None = None
) -> pd.DataFrame:
    """Rows of a data set at the window's time of the year; all of them for a model without seasons.

    Args:
        hours: of the window's rows (UTC); None does not look at them.
    """
    days = spec.drift.season_days
    if spec.time is None or days is None or spec.time not in frame:
        return frame
    times = frame[spec.time].dt.tz_convert("UTC") if frame[spec.time].dt.tz is not None else frame[spec.time]
    at = (times.dt.dayofyear + times.dt.hour / _HOURS_A_DAY).to_numpy(dtype=float)
    half = (window.end - window.start).total_seconds() / 2 / 86_400
    distance = np.abs(at - _day_of_year(window.start) - half) % _DAYS_A_YEAR
    keep = np.minimum(distance, _DAYS_A_YEAR - distance) <= days + half
    if hours is not None and len(np.unique(hours)) < _HOURS_A_DAY:
        keep &= np.isin(times.dt.hour.to_numpy(), np.unique(hours))
    if keep.sum() < spec.drift.min_rows:
        _log.warning("%s: %d reference rows of this season are too few; all are used", spec.name, int(keep.sum()))
        return frame
    alike: pd.DataFrame = frame[keep].reset_index(drop=True)
    return alike


def cycle_of(spec: ModelSpec, frame: pd.DataFrame) -> NDArray[np.intp] | None:
    """The hour of the day of each row, for a model with seasons."""
    if spec.time is None or spec.drift.season_days is None or spec.time not in frame:
        return None
    return np.asarray(frame[spec.time].dt.hour.to_numpy(), dtype=np.intp)


def _day_of_year(time: datetime) -> float:
    return time.timetuple().tm_yday + time.hour / _HOURS_A_DAY
