"""A year of a solar plant, replayed week by week against its own season: nothing must happen, or soiling be noticed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from decisions.case import Case, Outcome
from fleet import solar
from jobs.loop_cases import Loop
from slipway.core.drift import DriftResult
from slipway.jobs.window import plain_predictions

__all__ = ["CASES"]

_WEEK = timedelta(days=7)
_SOILED_FROM_DAY, _SOILING = 200, 0.15


class _NoReport:
    """Pages are not what is measured here."""

    def report(self, reference: pd.DataFrame, window: pd.DataFrame, result: DriftResult) -> tuple[str, str]:
        return "", "{}"


def champion() -> tuple[Loop, pd.DataFrame]:
    """A plant whose champion was trained on the typical year, and that year's rows with its answers."""
    loop = Loop(spec=solar.MODEL, reporter=_NoReport())
    version = loop.first_champion()
    frame = solar.load()
    scorer = loop.files.read(loop.tracker.artefacts / version.run_id / "model")
    frame["prediction"] = plain_predictions(loop.spec, scorer.predict(frame))
    return loop, frame


def weeks(loop: Loop, frame: pd.DataFrame, power: pd.Series, first: int, last: int) -> list[dict[str, Any]]:
    """What each week's drift run decides when the year's weather comes again, with `power` as labels."""
    names = list(loop.spec.feature_names)
    rows = frame[[*names, "prediction"]].assign(
        request_id=[f"{index:032x}" for index in range(len(frame))],
        row=0, ts=frame["time"], version="1", slot="blue", shadow=False, latency_ms=1.0,
    )  # fmt: skip
    loop.lake.logged = rows
    loop.lake.labelled = rows[["request_id", "row", "ts"]].assign(label=power)
    begin: datetime = frame["time"].min().to_pydatetime()
    found = []
    for week in range(first, last):
        start = begin + week * _WEEK
        loop.now = start + _WEEK + timedelta(hours=1)
        watched = loop.watch(start, start + _WEEK)
        found.append({"watched": watched, "decision": loop.decide(watched)})
    return found


def _acts(night: dict[str, Any]) -> bool:
    return bool(night["watched"]["confirmed"]) or night["decision"]["verdict"] in ("retrain", "held", "alert")


def year(scale: float) -> list[Outcome]:
    loop, frame = champion()
    count = max(6, int(52 * scale))
    nights = weeks(loop, frame, frame["ac_power"], 0, count)
    warned = sum(night["watched"]["verdict"] == "drift" for night in nights) / count
    judged = sum(night["watched"]["verdict"] in ("drift", "no_drift") for night in nights) / count
    acted = sum(map(_acts, nights)) / count
    notes = {"weeks_that_warn": warned}
    return [
        Outcome("a typical solar year: weeks that act", acted, 0.0, True, count, notes=notes),
        Outcome("a typical solar year: weeks that are judged", judged, 1.0, False, count),
    ]


def soiling(scale: float) -> list[Outcome]:
    loop, frame = champion()
    day = (frame["time"] - frame["time"].min()).dt.days
    power = frame["ac_power"].where(day < _SOILED_FROM_DAY, frame["ac_power"] * (1 - _SOILING))
    first = _SOILED_FROM_DAY // 7
    nights = weeks(loop, frame, power, first - 2, first + 5)
    band = loop.spec.retrain.loss_band
    alarms = [(night["watched"]["quality"] or {}).get("loss_bound", 0.0) > band for night in nights]
    before = sum(alarms[:2])
    needed = next((week for week, alarm in enumerate(alarms[2:], start=1) if alarm), 99)
    return [
        Outcome("15 % soiling: weeks until the quality alarm", needed, 3, True, 1, "weeks"),
        Outcome("15 % soiling: alarms in the two weeks before", before, 0, True, 2, "alarms"),
    ]


CASES = [Case("a typical solar year", year), Case("soiling", soiling)]
