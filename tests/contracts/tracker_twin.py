"""The `Tracker` and `Registry` ports in memory, and the `DecisionLog` beside them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from slipway.errors import NotFoundError
from slipway.ports import Decision, ModelVersion, Run, Snapshot
from slipway.spec import ModelSpec


class TrackerTwin:
    def __init__(self) -> None:
        self.runs: dict[str, tuple[str, Run]] = {}
        self.registered: list[ModelVersion] = []
        self.aliases: dict[tuple[str, str], str] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="tracker-twin-", ignore_cleanup_errors=True)
        self.artefacts = Path(self._folder.name)
        self.datasets: dict[str, str] = {}

    def find_runs(self, model: str, tags: Mapping[str, str]) -> Sequence[Run]:
        found = [run for owner, run in self.runs.values() if owner == model]
        return [run for run in found if all(run.tags.get(key) == value for key, value in tags.items())]

    def run(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise NotFoundError(f"MLflow has no run {run_id}")
        return self.runs[run_id][1]

    def start_run(self, model: str, name: str, tags: Mapping[str, str]) -> str:
        run_id = f"{len(self.runs):032x}"
        self.runs[run_id] = model, Run(run_id, name, False, dict(tags), {})
        return run_id

    def log(
        self,
        run_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        model, run = self.runs[run_id]
        merged = replace(run, tags={**run.tags, **(tags or {})}, metrics={**run.metrics, **(metrics or {})})
        self.runs[run_id] = model, merged

    def log_dataset(self, run_id: str, spec: ModelSpec, snapshot: Snapshot) -> None:
        self.datasets[run_id] = snapshot.sha256

    def upload_model(self, spec: ModelSpec, run_id: str, folder: Path) -> None:
        shutil.copytree(folder, self.artefacts / run_id, dirs_exist_ok=True)

    def download(self, run_id: str, path: str, folder: Path, without: Collection[str] = ()) -> Path:
        if not (self.artefacts / run_id / path).is_dir():
            raise NotFoundError(f"run {run_id} holds no artefacts below {path!r}; train again")
        ignore = shutil.ignore_patterns(*without)
        return Path(shutil.copytree(self.artefacts / run_id / path, folder / path, ignore=ignore, dirs_exist_ok=True))

    def finish(self, run_id: str) -> None:
        model, run = self.runs[run_id]
        self.runs[run_id] = model, replace(run, finished=True)

    def register(self, model: str, run_id: str, tags: Mapping[str, str], description: str) -> ModelVersion:
        known = next((one for one in self.registered if one.run_id == run_id), None)
        if known:
            return self.version(model, known.version)
        number = str(1 + sum(one.model == model for one in self.registered))
        self.registered.append(ModelVersion(model, number, run_id, datetime.now(UTC), (), dict(tags)))
        return self.version(model, number)

    def versions(self, model: str) -> Sequence[ModelVersion]:
        def named(version: ModelVersion) -> ModelVersion:
            aliases = [alias for (of, alias), to in self.aliases.items() if of == model and to == version.version]
            return replace(version, aliases=tuple(aliases))

        return [named(one) for one in self.registered if one.model == model]

    def version(self, model: str, version: str) -> ModelVersion:
        for one in self.versions(model):
            if one.version == version:
                return one
        raise NotFoundError(f"{model} has no version {version!r}")

    def by_alias(self, model: str, alias: str) -> ModelVersion | None:
        version = self.aliases.get((model, alias))
        return None if version is None else self.version(model, version)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self.aliases[model, alias] = self.version(model, version).version

    def tag(self, model: str, version: str, tags: Mapping[str, str]) -> None:
        for index, one in enumerate(self.registered):
            if (one.model, one.version) == (model, version):
                self.registered[index] = replace(one, tags={**one.tags, **tags})


class DecisionTwin:
    def __init__(self) -> None:
        self.rows: list[Decision] = []

    def record(self, decision: Decision) -> bool:
        if any(one.key == decision.key for one in self.rows):
            return False
        self.rows.append(decision)
        return True

    def recent(self, model: str, kind: str | None = None, limit: int = 50) -> Iterable[Decision]:
        found = [one for one in self.rows if one.model == model and kind in (None, one.kind)]
        return sorted(found, key=lambda one: one.at, reverse=True)[:limit]
