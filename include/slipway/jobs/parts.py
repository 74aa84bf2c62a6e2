"""What the release jobs are given: the ports they act through, in one record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from slipway.core.checks import Pair, SideLog
    from slipway.core.fleet import SlotRecord, Traffic
    from slipway.core.rollout_record import Phase, Rollout
    from slipway.core.routes import SlotName
    from slipway.ports import (
        Clock,
        Gateway,
        LedgerEntry,
        Package,
        Packager,
        Registry,
        SlotProbe,
        SlotRuntime,
    )

__all__ = ["AnswerLog", "Ledger", "LoggedLatency", "LoggedRequest", "Parts", "ReleaseStore"]


class ReleaseStore(Protocol):
    """Packages, slots, traffic and rollouts; every method is one transaction."""

    def lock(self, name: str, wait_seconds: float = 10.0) -> AbstractContextManager[None]: ...

    def package(self, model: str, version: str) -> Package: ...

    def slots(self, model: str | None = None) -> Sequence[SlotRecord]: ...

    def traffic(self) -> Sequence[Traffic]: ...

    def traffic_of(self, model: str) -> Traffic: ...

    def fleet(self) -> tuple[Sequence[SlotRecord], Sequence[Traffic]]: ...

    def know(self, models: Collection[str], now: datetime) -> None: ...

    def assign(self, model: str, slot: SlotName, version: str | None, bento_tag: str | None, now: datetime) -> None: ...

    def keep_warm(self, model: str, slot: SlotName, until: datetime, drain_until: datetime) -> None: ...

    def alias_moved(self, model: str, version: str) -> None: ...

    def begin(self, rollout: Rollout, package: Package, port_is_free: Callable[[int], bool]) -> None: ...

    def active(self, model: str) -> Rollout | None: ...

    def all_active(self) -> Sequence[Rollout]: ...

    def rollout(self, rollout_id: str) -> Rollout: ...

    def latest(self, model: str, *, phase: Phase | None = None, dag_run: str | None = None) -> Rollout | None: ...

    def save(self, rollout: Rollout) -> None: ...

    def command(
        self,
        rollout: Rollout,
        command: Literal["abort", "promote", "reject"],
        *,
        actor: str,
        reason: str,
        now: datetime,
        dag_run: str | None = None,
    ) -> bool: ...

    def ask(self, rollout: Rollout, why: str, now: datetime) -> Rollout: ...

    def approve(self, rollout: Rollout, *, actor: str, reason: str, now: datetime) -> bool: ...

    def shift(
        self,
        rollout: Rollout,
        weights: Mapping[SlotName, int],
        now: datetime,
        *,
        shadow_percent: int = 0,
        counters: Mapping[str, Any] | None = None,
    ) -> None: ...

    def split(
        self,
        model: str,
        weights: Mapping[SlotName, int],
        now: datetime,
        *,
        actor: str,
        reason: str,
        counters: Mapping[str, Any] | None = None,
    ) -> None: ...

    def go_live(self, rollout: Rollout, *, alias_moved: bool, now: datetime) -> Rollout: ...

    def end(self, rollout: Rollout, phase: Phase, now: datetime) -> Rollout: ...


class Ledger(Protocol):
    """Pure reads of the append-only ledger."""

    def history(self, model: str | None = None, limit: int = 100) -> Sequence[LedgerEntry]: ...

    def live_at(self, model: str, at: datetime) -> LedgerEntry | None: ...

    def until(self, model: str, at: datetime) -> Sequence[LedgerEntry]: ...

    def missing_rows(self) -> int: ...

    def weights_at(self, model: str, at: datetime) -> Mapping[str, int]: ...

    def went_live(self, model: str) -> Sequence[LedgerEntry]: ...

    def of_rollout(self, rollout_id: str) -> Sequence[LedgerEntry]: ...


class AnswerLog(Protocol):
    """The prediction log as a release reads it; raises `SlipwayError` when it cannot be read."""

    def sides(self, model: str, since: datetime, until: datetime, versions: Sequence[str]) -> Mapping[str, SideLog]: ...

    def pairs(self, model: str, since: datetime, until: datetime, old: str, new: str) -> Sequence[Pair]: ...

    def last_requests(self, model: str, until: datetime, limit: int) -> Sequence[LoggedRequest]: ...

    def latency(self, model: str, since: datetime, until: datetime) -> Mapping[str, LoggedLatency]: ...

    def write_report(self, model: str, run: str, name: str, content: str) -> str: ...


@dataclass(frozen=True)
class LoggedRequest:
    """One answered request of the log: its rows as they were sent, what was predicted, and labels by row."""

    request_id: str
    rows: tuple[Mapping[str, Any], ...]
    predictions: tuple[str | float, ...]
    labels: tuple[str | float | None, ...]
    latency_ms: float


@dataclass(frozen=True)
class LoggedLatency:
    """What one version answered in a window, by the log."""

    requests: int
    rows: int
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Parts:
    """Everything a release touches.

    `registry` is None where only Postgres and the gateway are needed; `answers` where there is no prediction log:
    checks that need it then cannot look.
    """

    store: ReleaseStore
    ledger: Ledger
    runtime: SlotRuntime
    gateway: Gateway
    packages: Packager
    probe: SlotProbe
    clock: Clock
    registry: Registry | None = None
    answers: AnswerLog | None = None
