"""Make few large files out of the many small ones that shipping writes, while they are read and added to.

The hours of the running date that are over become a file each, a date that is over becomes one file. Replaced files
are deleted only after a grace, so that whoever listed them before can finish reading. Every step is complete in
itself: killed anywhere, the next run finds what is left to do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from slipway.errors import SlipwayError

__all__ = ["CompactableLog", "TidyResult", "tidy"]

_log = logging.getLogger(__name__)

SETTLE_SECONDS = 600.0
GRACE_SECONDS = 20.0


class CompactableLog(Protocol):
    """The folders of the log: `slipway.adapters.log_folders.LogFolders`."""

    def exclusive(self) -> AbstractContextManager[bool]: ...

    def all(self) -> Sequence[Any]: ...

    def merge_hours(self, folder: Any, before: datetime) -> int: ...

    def merge_day(self, folder: Any) -> int: ...

    def sweep(self, folder: Any, before: datetime) -> int: ...


@dataclass
class TidyResult:
    """What one run did.

    Attributes:
        hours, days: files written for hours and for whole dates.
        deleted: files whose rows are in another one.
        problems: one line per folder that could not be compacted; it is read as it was.
        busy: another run was at work and nothing was done.
    """

    hours: int = 0
    days: int = 0
    deleted: int = 0
    problems: list[str] = field(default_factory=list)
    busy: bool = False


def tidy(
    log: CompactableLog,
    *,
    now: Callable[[], datetime],
    sleep: Callable[[float], None],
    settle_seconds: float = SETTLE_SECONDS,
    grace_seconds: float = GRACE_SECONDS,
) -> TidyResult:
    """Compact the whole log.

    Args:
        settle_seconds: an hour or date is merged so long after its end, when its last segments have been shipped; what
            comes later still is merged by the next run.
        grace_seconds: a reader that takes longer than this after listing has to list again, which it does by itself.
    """
    result = TidyResult()
    with log.exclusive() as alone:
        if not alone:
            result.busy = True
            return result
        grace = timedelta(seconds=grace_seconds)
        folders = log.all()
        for folder in folders:
            _guarded(_sweep, log, folder, now() - grace, result)
            _guarded(_merge, log, folder, now() - timedelta(seconds=settle_seconds), result)
        if result.hours or result.days:
            sleep(grace_seconds)
            for folder in folders:
                _guarded(_sweep, log, folder, now() - grace, result)
    _log.info("log: %d hours and %d days compacted, %d files deleted", result.hours, result.days, result.deleted)
    return result


def _guarded(
    work: Callable[[CompactableLog, Any, datetime, TidyResult], None],
    log: CompactableLog,
    folder: Any,
    moment: datetime,
    result: TidyResult,
) -> None:
    """One folder that fails does not hold up the others."""
    try:
        work(log, folder, moment, result)
    except (SlipwayError, OSError) as error:
        line = f"{folder.path}: {error}"
        _log.error("%s", line)
        result.problems.append(line)


def _merge(log: CompactableLog, folder: Any, settled: datetime, result: TidyResult) -> None:
    if folder.ends <= settled:
        result.days += log.merge_day(folder)
    else:
        result.hours += log.merge_hours(folder, settled)


def _sweep(log: CompactableLog, folder: Any, before: datetime, result: TidyResult) -> None:
    result.deleted += log.sweep(folder, before)
