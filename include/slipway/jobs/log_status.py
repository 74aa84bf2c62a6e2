"""How the prediction log of one model is doing: what was answered, what is in the lake, what is on its way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from slipway.jobs.reconcile_log import LogAccount, LoggedRows, TallySource, cover

__all__ = ["LogStatus", "log_status"]


class SpoolView(Protocol):
    """What waits: `slipway.adapters.spool.Spool`."""

    def pending_rows(self) -> Mapping[str, int]: ...

    def pending_bytes(self, model: str) -> int: ...

    def waiting_since(self, model: str | None = None) -> datetime | None: ...

    def damaged(self, model: str) -> Sequence[Any]: ...


class FolderView(Protocol):
    """How many files there are: `slipway.adapters.log_folders.LogFolders`."""

    def count(self, model: str) -> Any: ...


@dataclass(frozen=True)
class LogStatus:
    """Rows of today are those since midnight UTC, without rows of shadow requests.

    Attributes:
        pending_rows, pending_bytes: in the spool and not in the lake; rows of shadow requests and labels included.
        oldest_seconds: age of the oldest segment in the spool; None if it is empty.
        answered_today, logged_today: rows answered, rows of today in the lake.
        missing_today: answered and neither in the lake nor waiting.
        lost_today: answered rows that the bento could not log and counted, as its policy says.
        refused_today: rows refused with 503 because there was no room to log them.
        damaged_segments: files set aside because the disk had lost a part of them.
        files_shipped, files_compacted, files_replaced: Parquet files of predictions, of all dates.
    """

    model: str
    pending_rows: int
    pending_bytes: int
    oldest_seconds: float | None
    answered_today: int
    logged_today: int
    missing_today: int
    lost_today: int
    refused_today: int
    labels_today: int
    damaged_segments: int
    files_shipped: int
    files_compacted: int
    files_replaced: int


def log_status(
    model: str,
    *,
    spool: SpoolView,
    tallies: TallySource,
    accounts: LogAccount,
    lake: LoggedRows,
    folders: FolderView,
    now: datetime,
) -> LogStatus:
    """Look at one model's log; changes nothing."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    since = spool.waiting_since(model)
    # What is answered is asked first and what waits last: a row on its way is seen at least once, never missed.
    hours = cover(
        model,
        midnight,
        midnight + timedelta(days=1),
        tallies=tallies,
        accounts=accounts,
        lake=lake,
        waiting_since=since,
    )
    pending = spool.pending_rows().get(model, 0)
    answered, logged = sum(hour.answered for hour in hours), sum(hour.logged for hour in hours)
    files = folders.count(model)
    return LogStatus(
        model=model,
        pending_rows=pending,
        pending_bytes=spool.pending_bytes(model),
        oldest_seconds=None if since is None else max(0.0, (now - since).total_seconds()),
        answered_today=answered,
        logged_today=logged,
        missing_today=max(0, answered - logged - pending),
        lost_today=sum(hour.lost for hour in hours),
        refused_today=sum(hour.refused for hour in hours),
        labels_today=sum(hour.labels for hour in hours),
        damaged_segments=len(spool.damaged(model)),
        files_shipped=files.shipped,
        files_compacted=files.compacted,
        files_replaced=files.replaced,
    )
