"""The prediction log as a release reads it: both versions' answers, mirrored pairs, and the last requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from slipway.core.checks import Pair, SideLog
from slipway.jobs.parts import LoggedLatency, LoggedRequest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LakeAnswers"]

# The first is short: it holds enough where there is much traffic, and then nothing more is read into memory.
_REACHES = (timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=6), timedelta(days=2), timedelta(days=14))
_MOST_ROWS = 200  # of one request that are replayed


class _Lake(Protocol):
    def predictions(self, model: str, start: datetime, end: datetime, *, shadow: bool = False) -> pd.DataFrame: ...

    def answers(self, model: str, start: datetime, end: datetime, *, shadow: bool = False) -> pd.DataFrame: ...

    def labels(self, model: str, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame: ...

    def write_report(self, model: str, run: str, name: str, content: str | bytes) -> str: ...


class LakeAnswers:
    """The `AnswerLog` over the lake.

    Args:
        features: a model's feature columns, and whether each holds whole numbers.
        ship: brings what the slots have sealed into the lake first; the keeper does so as well.
    """

    def __init__(
        self, lake: _Lake, features: Callable[[str], Mapping[str, bool]], ship: Callable[[], object] | None = None
    ) -> None:
        self._lake, self._features, self._ship = lake, features, ship

    def sides(self, model: str, since: datetime, until: datetime, versions: Sequence[str]) -> Mapping[str, SideLog]:
        """What each of the versions answered in the window, with the labels that came for it until now."""
        frame = self._answers(model, since, until)
        labelled = self._with_labels(model, frame, since)
        found = {}
        for version in versions:
            mine = labelled[labelled["version"] == version]
            known = mine[mine["label"].notna()]
            pairs = list(zip(known["prediction"].tolist(), known["label"].tolist(), strict=True))
            found[version] = SideLog(mine["prediction"].tolist(), pairs)
        return found

    def pairs(self, model: str, since: datetime, until: datetime, old: str, new: str) -> Sequence[Pair]:
        """Rows that the old version answered and the new one answered as a shadow, joined by request id."""
        live, shadow = self._answers(model, since, until), self._lake.answers(model, since, until, shadow=True)
        if live.empty or shadow.empty:
            return []
        copy = shadow[shadow["version"] == new][["request_id", "row", "prediction"]]
        both = live[live["version"] == old].merge(copy, on=["request_id", "row"], suffixes=("", "_new"))
        both = self._with_labels(model, both, since)
        columns = (both[name].tolist() for name in ("prediction", "prediction_new", "label"))
        return [Pair(a, b, None if label != label else label) for a, b, label in zip(*columns, strict=True)]

    def last_requests(self, model: str, until: datetime, limit: int) -> Sequence[LoggedRequest]:
        """The newest answered requests, oldest first; looks further back until there are enough."""
        self._bring()
        features = self._features(model)
        frame = self._lake.predictions(model, until - _REACHES[0], until)
        for reach in _REACHES[1:]:
            if not frame.empty and frame["request_id"].nunique() >= limit:
                break
            frame = self._lake.predictions(model, until - reach, until)
        if frame.empty or not set(features) <= set(frame.columns):
            return []
        newest = frame.groupby("request_id")["ts"].max().nlargest(limit).index
        frame = self._with_labels(model, frame[frame["request_id"].isin(newest)], until - _REACHES[-1])
        frame = frame.sort_values(["ts", "request_id", "row"])
        return [_request(str(key), rows, features) for key, rows in frame.groupby("request_id", sort=False)]

    def latency(self, model: str, since: datetime, until: datetime) -> Mapping[str, LoggedLatency]:
        """Requests, rows and latency by version."""
        frame = self._answers(model, since, until)
        found = {}
        for version, rows in frame.groupby("version") if not frame.empty else ():
            each = rows.drop_duplicates("request_id")["latency_ms"]
            p50, p99 = (float(each.quantile(share)) for share in (0.5, 0.99))
            found[str(version)] = LoggedLatency(len(each), len(rows), p50, p99)
        return found

    def write_report(self, model: str, run: str, name: str, content: str) -> str:
        """Keep a report; its address."""
        return self._lake.write_report(model, run, name, content)

    def _answers(self, model: str, since: datetime, until: datetime) -> pd.DataFrame:
        self._bring()
        return self._lake.answers(model, since, until)

    def _bring(self) -> None:
        if self._ship is not None:
            self._ship()

    def _with_labels(self, model: str, frame: pd.DataFrame, since: datetime) -> pd.DataFrame:
        labels = self._lake.labels(model, since)
        return frame.merge(labels[["request_id", "row", "label"]], on=["request_id", "row"], how="left")


def _request(key: str, rows: pd.DataFrame, features: Mapping[str, bool]) -> LoggedRequest:
    rows = rows.head(_MOST_ROWS)
    columns = {name: [_value(v, whole) for v in rows[name].tolist()] for name, whole in features.items()}
    return LoggedRequest(
        key,
        tuple(dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)),
        tuple(rows["prediction"].tolist()),
        tuple(None if label != label else label for label in rows["label"].tolist()),
        float(rows["latency_ms"].iloc[0]),
    )


def _value(value: Any, whole: bool) -> Any:
    if value is None or value != value:
        return None
    return int(value) if whole else value
