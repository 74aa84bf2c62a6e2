"""Requests answered = rows logged: compare the bentos' own account with what is in the lake, hour by hour.

The account and the log are written one after the other by the same process, the log first. So a process that is killed
between the two leaves a logged row that was never answered, at most one request per kill, and never the opposite:
an hour with fewer logged rows than answered ones has really lost some. Such an hour is quarantined: nothing is trained
on it, and no verdict about drift is built on a window that holds too many of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol

from slipway.errors import DataError
from slipway.jobs.quarantine import CheckVerdict, record_check
from slipway.ports import DecisionLog
from slipway.spec import ModelSpec

__all__ = [
    "HourCoverage",
    "LogAccount",
    "LoggedRows",
    "Reconciled",
    "answered_rows",
    "collect",
    "cover",
    "incomplete_hours",
    "reconcile",
]

_log = logging.getLogger(__name__)
_HOUR = timedelta(hours=1)
_MOST_DECISIONS = 10_000


class TallySource(Protocol):
    """The bentos' tallies: `slipway.adapters.tally.Tallies`."""

    def read(self) -> Sequence[Any]: ...

    def remove(self, tally: Any) -> None: ...

    def sweep(self) -> None: ...


class LogAccount(Protocol):
    """What the lake keeps of them: `slipway.adapters.log_accounts.LogAccounts`."""

    def keep(self, tally: Any) -> None: ...

    def counts(
        self, model: str, start: datetime, end: datetime, live: Sequence[Any] = ()
    ) -> Mapping[datetime, Mapping[str, int]]: ...

    def write_coverage(self, model: str, day: date, rows: Sequence[Mapping[str, Any]]) -> None: ...


class LoggedRows(Protocol):
    """The log: `slipway.adapters.lake.ParquetLake`."""

    def logged_by_hour(self, model: str, start: datetime, end: datetime) -> Mapping[datetime, int]: ...

    def count_predictions(self, model: str, start: datetime, end: datetime) -> int: ...


@dataclass(frozen=True)
class HourCoverage:
    """One hour of one model; rows of shadow requests are in none of the numbers but `shadow`.

    Attributes:
        answered, logged: rows that were answered, rows in the lake.
        lost: answered rows of which the bento itself said that they could not be logged.
        refused: rows that were refused, with 503, because they could not have been logged.
        settled: no segment that may hold rows of this hour waits in the spool.
        waiting: rows that are neither logged nor missing, since they are still in the spool.
    """

    hour: datetime
    answered: int
    logged: int
    lost: int
    refused: int
    requests: int
    shadow: int
    labels: int
    settled: bool
    waiting: int = 0

    @property
    def missing(self) -> int:
        return max(0, self.answered - self.logged - self.waiting)

    @property
    def coverage(self) -> float:
        return min(1.0, self.logged / self.answered) if self.answered else 1.0


@dataclass
class Reconciled:
    """One model's outcome; `incomplete` are hours below the threshold, `found` those that were not known to be."""

    model: str
    hours: int = 0
    answered: int = 0
    logged: int = 0
    missing: int = 0
    lost: int = 0
    refused: int = 0
    unsettled_hours: int = 0
    incomplete: list[str] = field(default_factory=list)
    found: list[str] = field(default_factory=list)


def collect(tallies: TallySource, accounts: LogAccount) -> int:
    """Bring the tallies of processes that ended, and of former dates, into the lake; how many."""
    closed = [tally for tally in tallies.read() if tally.closed]
    for tally in closed:
        accounts.keep(tally)
        tallies.remove(tally)
    tallies.sweep()
    return len(closed)


def cover(
    model: str,
    start: datetime,
    end: datetime,
    *,
    tallies: TallySource,
    accounts: LogAccount,
    lake: LoggedRows,
    waiting_since: datetime | None,
    waiting_rows: Callable[[], int] = int,
) -> list[HourCoverage]:
    """Every hour that overlaps `start <= ts < end` and in which something was answered, refused or logged.

    Args:
        waiting_since: when the oldest segment in the spool was begun; None if it is empty.
        waiting_rows: counts the rows in the spool; they belong to the newest hours that are not settled.

    Raises:
        DataError: a time without a zone.
    """
    if start.tzinfo is None or end.tzinfo is None:
        raise DataError("the window's start and end need a time zone; use UTC")
    first = _floor(start)
    last = _floor(end - timedelta(microseconds=1)) + _HOUR
    # First what was answered, then what waits, then what is logged: the other way round traffic in between would
    # look lost.
    counts = accounts.counts(model, first, last, tallies.read())
    waiting = waiting_rows()
    logged = lake.logged_by_hour(model, first, last)
    hours: list[HourCoverage] = []
    for hour in sorted({*counts, *logged}, reverse=True):
        known = counts.get(hour, {})
        numbers = {name: known.get(name, 0) for name in ("answered", "lost", "refused", "requests", "shadow", "labels")}
        settled = waiting_since is None or waiting_since >= hour + _HOUR
        there = logged.get(hour, 0)
        own = 0 if settled else min(waiting, max(0, numbers["answered"] - there))
        waiting -= own
        hours.append(HourCoverage(hour, logged=there, settled=settled, waiting=own, **numbers))
    return hours[::-1]


def answered_rows(hours: Sequence[HourCoverage], logged: int) -> int | None:
    """How many rows were answered in a window that has `logged` rows; None where no account is known.

    Rows that are missing from an hour at the window's edge count as if all of them belonged to the window: nobody can
    tell, and too careful a verdict says "inconclusive".
    """
    if not any(hour.answered for hour in hours):
        return None
    return logged + sum(hour.missing for hour in hours)


def reconcile(
    spec: ModelSpec,
    start: datetime,
    end: datetime,
    *,
    tallies: TallySource,
    accounts: LogAccount,
    lake: LoggedRows,
    decisions: DecisionLog,
    waiting_since: datetime | None,
    now: datetime,
) -> Reconciled:
    """Compare every hour of the window, keep the outcome in the lake, and quarantine hours below the threshold.

    An hour that is complete after all, because its segments came late, is released again. Hours whose segments still
    wait are left for the next time.
    """
    hours = cover(spec.name, start, end, tallies=tallies, accounts=accounts, lake=lake, waiting_since=waiting_since)
    by_date: dict[date, list[HourCoverage]] = {}
    for one in hours:
        by_date.setdefault(one.hour.date(), []).append(one)
    for day, found in by_date.items():
        rows = [asdict(one) | {"missing": one.missing, "coverage": one.coverage} for one in found]
        accounts.write_coverage(spec.name, day, rows)
    result = Reconciled(spec.name, len(hours))
    quarantined = incomplete_hours(decisions, spec.name)
    for one in hours:
        result.answered += one.answered
        result.logged += one.logged
        result.missing += one.missing
        result.lost += one.lost
        result.refused += one.refused
        if not one.settled:
            result.unsettled_hours += 1
            continue
        _judge(spec, one, one.hour in quarantined, decisions, now, result)
    level = logging.ERROR if result.incomplete else logging.INFO
    _log.log(
        level,
        "%s: %d rows answered, %d logged, %d missing (%d known lost), %d refused, in %d hours; incomplete: %s",
        spec.name, result.answered, result.logged, result.missing, result.lost, result.refused, result.hours,
        ", ".join(result.incomplete) or "none",
    )  # fmt: skip
    return result


def _judge(
    spec: ModelSpec, one: HourCoverage, quarantined: bool, decisions: DecisionLog, now: datetime, result: Reconciled
) -> None:
    incomplete = one.coverage < spec.drift.min_coverage
    if incomplete:
        result.incomplete.append(one.hour.isoformat())
    if incomplete == quarantined:
        return
    if incomplete:
        result.found.append(one.hour.isoformat())
    verdict: CheckVerdict = "quarantined" if incomplete else "passed"
    reason = f"{one.logged} of {one.answered} answered rows are logged, {spec.drift.min_coverage:.2%} needed"
    evidence = {
        "start": _stamp(one.hour),
        "end": _stamp(one.hour + _HOUR),
        "answered": one.answered,
        "logged": one.logged,
        "lost": one.lost,
        "coverage": one.coverage,
    }
    record_check(decisions, spec.name, f"coverage:{one.hour:%Y%m%dT%HZ}", verdict, (reason,), evidence, now)


def incomplete_hours(decisions: DecisionLog, model: str) -> set[datetime]:
    """The hours that are quarantined now because answered rows are missing from the log."""
    prefix = f"data:{model}:coverage:"
    newest: dict[datetime, str] = {}
    for decision in decisions.recent(model, "data", limit=_MOST_DECISIONS):
        if decision.key.startswith(prefix):
            newest.setdefault(datetime.fromisoformat(str(decision.evidence["start"])), decision.verdict)
    return {hour for hour, verdict in newest.items() if verdict == "quarantined"}


def _stamp(moment: datetime) -> str:
    """ISO 8601 as no other decision writes it: a data check of the very same hour is another matter."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _floor(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
