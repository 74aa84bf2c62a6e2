"""The ports: what the jobs need from the outside, as small protocols over frozen records.

Each has one real adapter in `slipway/adapters/` (one file per outside system) and an in-memory twin in
`tests/contracts/`; one contract suite runs over both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from slipway.core.routes import Address

if TYPE_CHECKING:
    import pandas as pd

    from slipway.core.drift import DriftResult
    from slipway.core.metrics import Predictions
    from slipway.core.routes import GatewayState, Route
    from slipway.core.slot_metrics import SlotMetrics
    from slipway.spec import ModelSpec

__all__ = [
    "Clock",
    "Decision",
    "DecisionLog",
    "DriftReporter",
    "Expectation",
    "Gateway",
    "Lake",
    "LedgerEntry",
    "ModelFiles",
    "ModelVersion",
    "Package",
    "Packager",
    "Readiness",
    "Registry",
    "Run",
    "ScoreInput",
    "ScorePart",
    "ScoreStore",
    "ScoredPart",
    "Scorer",
    "Severity",
    "Slot",
    "SlotAnswer",
    "SlotName",
    "SlotProbe",
    "SlotRuntime",
    "Snapshot",
    "Tracker",
    "Validation",
    "Validator",
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
    """One of a model's two places to run; `running` is what the runtime says, not what was asked for.

    `rollout_id` tells a runtime on whose behalf it starts something; it is not read back.
    """

    model: str
    slot: SlotName
    port: int
    version: str | None = None
    bento_tag: str | None = None
    running: bool = False
    host: str = "127.0.0.1"
    rollout_id: str | None = None

    @property
    def address(self) -> Address:
        """Where its bento listens."""
        return Address(self.host, self.port)


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


@dataclass(frozen=True)
class Readiness:
    """Whether a slot answers its golden rows; `ready` is None when it could not be asked (a timeout).

    `dead`: nothing listens there, so that requests sent there have met nobody.
    """

    ready: bool | None
    detail: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    dead: bool = False


@dataclass(frozen=True)
class SlotAnswer:
    """What a slot answered to rows that are no traffic; `detail` says why it refused."""

    status: int
    predictions: tuple[str | float, ...]
    latency_ms: float
    detail: str = ""


class Clock(Protocol):
    """The time in UTC, and waiting; a test passes one that only counts."""

    def now(self) -> datetime: ...

    def sleep(self, seconds: float) -> None: ...


class Gateway(Protocol):
    """The data plane. Publishing a fleet and confirming that it is in force are two calls."""

    def publish(self, fleet: Sequence[Route]) -> None: ...

    def confirm(self, fleet: Sequence[Route], wait_seconds: float = 5.0) -> GatewayState: ...

    def observe(self) -> GatewayState: ...

    def version(self, fleet: Sequence[Route]) -> str: ...


class SlotProbe(Protocol):
    """Asks a running slot at its own address, past the gateway."""

    def ready(self, model: str, address: Address) -> Readiness: ...

    def metrics(self, address: Address) -> SlotMetrics: ...

    def predict(self, model: str, address: Address, body: Mapping[str, Any], request_id: str) -> SlotAnswer: ...

    def port_is_free(self, port: int) -> bool: ...


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

    def predictions(
        self, model: str, start: datetime, end: datetime, *, shadow: bool = False, limit: int | None = None
    ) -> pd.DataFrame: ...

    def count_predictions(self, model: str, start: datetime, end: datetime, *, shadow: bool = False) -> int: ...

    def labelled_predictions(
        self, model: str, start: datetime, end: datetime, *, labels_from: datetime, limit: int
    ) -> pd.DataFrame: ...

    def labels(self, model: str, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame: ...

    def write_report(self, model: str, run: str, name: str, content: str | bytes) -> str: ...


class DecisionLog(Protocol):
    """Every decision with its reasons, kept in Postgres."""

    def record(self, decision: Decision) -> bool: ...

    def recent(self, model: str, kind: str | None = None, limit: int = 50) -> Iterable[Decision]: ...


@dataclass(frozen=True)
class Run:
    """One candidate's training run in MLflow; `finished` once everything of it is stored."""

    run_id: str
    name: str
    finished: bool
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


class Tracker(Protocol):
    """MLflow's experiment tracking: one experiment per model, one run per candidate, found again by its tags."""

    def find_runs(self, model: str, tags: Mapping[str, str]) -> Sequence[Run]: ...

    def run(self, run_id: str) -> Run: ...

    def start_run(self, model: str, name: str, tags: Mapping[str, str]) -> str: ...

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None: ...

    def log_dataset(self, run_id: str, spec: ModelSpec, snapshot: Snapshot) -> None: ...

    def upload_model(self, spec: ModelSpec, run_id: str, folder: Path) -> None: ...

    def download(self, run_id: str, path: str, folder: Path, without: Collection[str] = ()) -> Path: ...

    def finish(self, run_id: str) -> None: ...

    def register(self, model: str, run_id: str, tags: Mapping[str, str], description: str) -> ModelVersion: ...


class Scorer(Protocol):
    """A loaded model: answers to a frame with every feature column, in the frame's order."""

    format: Literal["onnx", "skops"]

    def predict(self, frame: pd.DataFrame) -> Predictions: ...


class ModelFiles(Protocol):
    """Writes fitted estimators to files that are loaded without executing code, and reads them back."""

    def write(self, spec: ModelSpec, fitted: Any, rows: pd.DataFrame, folder: Path) -> Mapping[str, Any]: ...

    def read(self, folder: Path) -> Scorer: ...

    def read_estimator(self, spec: ModelSpec, folder: Path) -> Any: ...


Severity = Literal["critical", "warning", "info"]


@dataclass(frozen=True)
class Expectation:
    """One expectation about the data and whether it was met; `detail` is what was seen instead.

    Attributes:
        severity: critical stops the data, a warning is reported, info only informs.
    """

    name: str
    column: str | None
    met: bool
    detail: str = ""
    severity: Severity = "critical"

    @property
    def sentence(self) -> str:
        return (
            f"{self.column + ': ' if self.column else ''}{self.name}{' (' + self.detail + ')' if self.detail else ''}"
        )


@dataclass(frozen=True)
class Validation:
    """The outcome of a data check: passed only if there were critical expectations and all of them were met."""

    rows: int
    expectations: tuple[Expectation, ...]

    @property
    def passed(self) -> bool:
        critical = [one for one in self.expectations if one.severity == "critical"]
        return bool(critical) and all(one.met for one in critical)

    @property
    def failures(self) -> tuple[str, ...]:
        return self.unmet("critical")

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.unmet("warning")

    def unmet(self, severity: Severity) -> tuple[str, ...]:
        """What was not met of one tier, in words."""
        return tuple(one.sentence for one in self.expectations if one.severity == severity and not one.met)


class Validator(Protocol):
    """Great Expectations: the suite that a spec implies, run over a frame of a known, sane shape."""

    def validate(
        self,
        spec: ModelSpec,
        frame: pd.DataFrame,
        *,
        min_rows: int,
        target: bool,
        reference: pd.DataFrame | None = None,
    ) -> Validation: ...


class DriftReporter(Protocol):
    """Evidently: the report that people read, drawn with the thresholds that the verdict used."""

    def report(self, reference: pd.DataFrame, window: pd.DataFrame, result: DriftResult) -> tuple[str, str]: ...


@dataclass(frozen=True)
class ScorePart:
    """One piece of a batch input that becomes one output file: some row groups of one Parquet file."""

    name: str
    file: str
    row_groups: tuple[int, ...]
    rows: int


@dataclass(frozen=True)
class ScoreInput:
    """A Parquet data set as it is now; `fingerprint` changes with its files, `columns` maps names to Arrow types."""

    fingerprint: str
    columns: Mapping[str, str]
    parts: tuple[ScorePart, ...]


@dataclass(frozen=True)
class ScoredPart:
    """An output file that is whole: its rows, and how many of them could not be predicted."""

    rows: int
    problems: int


class ScoreStore(Protocol):
    """Batch inputs of any size and their outputs; an output file appears whole, so a repeat finds what is done."""

    def survey(self, url: str) -> ScoreInput: ...

    def frames(self, part: ScorePart, features: Sequence[str], keep: Sequence[str]) -> Iterator[pd.DataFrame]: ...

    def done(self, folder: str) -> Mapping[str, ScoredPart]: ...

    def write(self, folder: str, name: str, frames: Iterable[pd.DataFrame]) -> ScoredPart: ...

    def manifest(self, folder: str) -> Mapping[str, Any] | None: ...

    def finish(self, folder: str, manifest: Mapping[str, Any]) -> None: ...

    def uri(self, folder: str) -> str: ...
