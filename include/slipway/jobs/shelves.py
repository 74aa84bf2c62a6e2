"""What housekeeping looks through, as ports: each kind of thing that may be cleared away has a shelf."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from slipway.core.reach import Stored

if TYPE_CHECKING:
    from slipway.ports import DecisionLog, ModelVersion

__all__ = ["BentoShelf", "FileShelf", "LakeShelf", "RunShelf", "Shelves"]


class BentoShelf(Protocol):
    """Built bentos: `slipway.adapters.shelves.BentoStore`."""

    def all(self) -> Sequence[Stored]: ...

    def remove(self, model: str, version: str) -> None: ...

    def sweep(self) -> None: ...


class RunShelf(Protocol):
    """Versions and runs in MLflow: `slipway.adapters.mlflow_shelf.MlflowShelf`."""

    def versions(self, model: str) -> Sequence[ModelVersion]: ...

    def runs(self, model: str) -> Sequence[Stored]: ...

    def remove_version(self, model: str, version: str) -> None: ...

    def remove_run(self, run_id: str) -> None: ...

    def purge(self, model: str) -> int: ...


class LakeShelf(Protocol):
    """Data sets, reports and settled accounts in the lake: `slipway.adapters.shelves.LakeStore`."""

    def data_sets(self, model: str) -> Sequence[Stored]: ...

    def reports(self, model: str) -> Sequence[Stored]: ...

    def accounts(self, model: str) -> Sequence[Stored]: ...

    def remove(self, kind: str, model: str, name: str) -> None: ...


class FileShelf(Protocol):
    """Single files: `slipway.adapters.shelves.SlotLogs` and `DamagedSegments`."""

    def all(self) -> Sequence[Stored]: ...

    def remove(self, name: str) -> None: ...


@dataclass(frozen=True)
class Shelves:
    """Everything that housekeeping looks through."""

    bentos: BentoShelf
    runs: RunShelf
    lake: LakeShelf
    logs: FileShelf
    damaged: FileShelf
    decisions: DecisionLog
