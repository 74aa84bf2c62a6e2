"""The `Lake` port in memory."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Literal

import pandas as pd

from slipway.errors import NotFoundError
from slipway.ports import Snapshot


class LakeTwin:
    """Frames by name; `logged` and `labelled` are what the keeper would have shipped."""

    def __init__(self) -> None:
        self.frames: dict[tuple[str, str], tuple[Snapshot, pd.DataFrame]] = {}
        self.logged = pd.DataFrame()
        self.labelled = pd.DataFrame(columns=["request_id", "row", "label", "ts"])
        self.reports: dict[str, bytes] = {}

    def write_snapshot(self, model: str, frame: pd.DataFrame, source: Literal["loader", "retrain"]) -> Snapshot:
        content = frame.to_csv(index=False, date_format="%Y-%m-%dT%H:%M:%S.%f%z").encode()
        sha256 = hashlib.sha256(content).hexdigest()
        known = self.frames.get((model, sha256))
        if known:
            return known[0]
        snapshot = Snapshot(model, sha256, len(frame), f"memory://{sha256}", source, datetime.now(UTC))
        self.frames[model, sha256] = snapshot, frame.copy()
        return snapshot

    def snapshot(self, model: str, sha256: str) -> Snapshot:
        if (model, sha256) not in self.frames:
            raise NotFoundError(f"no snapshot {sha256}")
        return self.frames[model, sha256][0]

    def read_snapshot(self, snapshot: Snapshot) -> pd.DataFrame:
        return self.frames[snapshot.model, snapshot.sha256][1].copy()

    def predictions(
        self, model: str, start: datetime, end: datetime, *, shadow: bool = False, limit: int | None = None
    ) -> pd.DataFrame:
        if self.logged.empty:
            return self.logged.copy()
        inside = (self.logged["ts"] >= start) & (self.logged["ts"] < end) & (self.logged["shadow"] == shadow)
        return _drawn(self.logged[inside], limit)

    def count_predictions(self, model: str, start: datetime, end: datetime, *, shadow: bool = False) -> int:
        return len(self.predictions(model, start, end, shadow=shadow))

    def labelled_predictions(
        self, model: str, start: datetime, end: datetime, *, labels_from: datetime, limit: int
    ) -> pd.DataFrame:
        given = self.labels(model, labels_from, None)[["request_id", "row", "label"]]
        logged = self.predictions(model, start, end)
        if logged.empty:
            return logged.assign(label=[])
        return _drawn(logged.merge(given, on=["request_id", "row"]), limit)

    def labels(self, model: str, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        frame = self.labelled
        if start is not None:
            frame = frame[frame["ts"] >= start]
        if end is not None:
            frame = frame[frame["ts"] < end]
        return frame.sort_values("ts").drop_duplicates(["request_id", "row"], keep="last").reset_index(drop=True)

    def write_report(self, model: str, run: str, name: str, content: str | bytes) -> str:
        path = f"reports/model={model}/{run}/{name}"
        self.reports[path] = content.encode() if isinstance(content, str) else content
        return f"memory://{path}"


def _drawn(frame: pd.DataFrame, limit: int | None) -> pd.DataFrame:
    if limit is not None and len(frame) > limit:
        keys = frame["request_id"].astype(str) + ":" + frame["row"].astype(str)
        frame = frame.iloc[pd.util.hash_pandas_object(keys, index=False).to_numpy().argsort(kind="stable")[:limit]]
    return frame.sort_values(["ts", "request_id", "row"]).reset_index(drop=True)
