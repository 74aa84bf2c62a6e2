"""The ports: what the jobs need from the outside, as small protocols over frozen records.

Each has one real adapter in `slipway/adapters/` (one file per outside system) and an in-memory twin in
`tests/contracts/`; one contract suite runs over both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Decision",
    "DecisionLog",
    "Lake",
    "LedgerEntry",
    "ModelVersion",
    "Package",
    "Packager",
    "Registry",
    "Slot",
    "SlotName",
    "SlotRuntime",
    "Snapshot",
]

SlotName = Literal["blue", "green"]


@dataclass(frozen=True)
class Snapshot:
    """One immutable data set in the lake, named by the SHA-256 of its content."""

    model: str
    sha256: str
    rows: int
    uri: str
    source: Literal["loader", "retrain"]
    created_at: datetime


@dataclass(frozen=True)
class ModelVersion:
    """One registered version of a model; `tags` hold data hash, code commit, gate evidence and bento tag."""

    model: str
    version: str
    run_id: str
    created_at: datetime
    aliases: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Package:
    """A built bento: what a slot runs. `digest` is the SHA-256 over its files, checked before each start."""

    model: str
    version: str
    bento_tag: str
    path: Path
    digest: str
    dataset_sha256: str | None = None
    code_commit: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Slot:
    """One of a model's two places to run; `running` is what the runtime says, not what was asked for."""

    model: str
    slot: SlotName
    port: int
    version: str | None = None
    bento_tag: str | None = None
    running: bool = False


@dataclass(frozen=True)
class LedgerEntry:
    """One row of the append-only ledger."""

    seq: int
    at: datetime
    model: str
    event: str
    version: str | None
    slot: SlotName | None
    actor: str
    reason: str
    rollout_id: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """One judgement that Slipway made by itself: a gate, a drift verdict, a retrain, a quarantine.

    `key` makes it idempotent: the same key recorded twice is one row.
    """

    key: str
    model: str
    kind: Literal["gate", "drift", "retrain", "data"]
    verdict: str
    reasons: tuple[str, ...]
    evidence: Mapping[str, Any]
    at: datetime


class SlotRuntime(Protocol):
    """Starts and stops the two slots of every model: Supervisor embedded, Docker in containers.

    Every call is idempotent: starting what runs with the same bento, or stopping what is stopped, changes nothing.
    """

    def start(self, slot: Slot, package: Package) -> None: ...

    def stop(self, slot: Slot, drain_seconds: float) -> None: ...

    def list(self) -> Sequence[Slot]: ...


class Registry(Protocol):
    """MLflow's model registry. Aliases: `champion` serves, `challenger` is on its way."""

    def versions(self, model: str) -> Sequence[ModelVersion]: ...

    def version(self, model: str, version: str) -> ModelVersion: ...

    def by_alias(self, model: str, alias: str) -> ModelVersion | None: ...

    def set_alias(self, model: str, alias: str, version: str) -> None: ...

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None: ...


class Packager(Protocol):
    """Turns a registered version into a bento; building the same version twice gives the same package."""

    def build(self, model: str, version: str) -> Package: ...

    def verify(self, package: Package) -> None: ...


class Lake(Protocol):
    """The Parquet lake, below one fsspec URL. Writes are atomic and idempotent by name."""

    def write_snapshot(self, model: str, frame: pd.DataFrame, source: Literal["loader", "retrain"]) -> Snapshot: ...

    def snapshot(self, model: str, sha256: str) -> Snapshot: ...

    def read_snapshot(self, snapshot: Snapshot) -> pd.DataFrame: ...

    def predictions(self, model: str, start: datetime, end: datetime, *, shadow: bool = False) -> pd.DataFrame: ...

    def labels(self, model: str, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame: ...

    def write_report(self, model: str, run: str, name: str, content: str | bytes) -> str: ...


class DecisionLog(Protocol):
    """Every decision with its reasons, kept in Postgres."""

    def record(self, decision: Decision) -> bool: ...

    def recent(self, model: str, kind: str | None = None, limit: int = 50) -> Iterable[Decision]: ...
