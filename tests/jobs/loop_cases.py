"""What the tests of the learning loop share: a model on twins, and traffic as the keeper would have shipped it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from contracts.lake_twin import LakeTwin
from contracts.tracker_twin import DecisionTwin, TrackerTwin
from fleet import iris
from slipway.adapters.evidently import EvidentlyReporter
from slipway.adapters.gx import GxValidator
from slipway.adapters.onnx import OnnxModelFiles
from slipway.jobs import gate as gate_jobs
from slipway.jobs import retrain as retrain_jobs
from slipway.jobs.simulate import cut_text
from slipway.jobs.snapshot import snapshot, validate
from slipway.jobs.train import train
from slipway.jobs.watch import watch
from slipway.jobs.window import plain_predictions
from slipway.ports import ModelVersion, Snapshot
from slipway.spec import Candidate, ModelSpec


def _thinned(build: Callable[[], Any]) -> Any:
    model = build()
    forest = "n_estimators" in model.get_params()
    return model.set_params(n_estimators=model.get_params()["n_estimators"] // 10) if forest else model


START = datetime(2026, 11, 20, tzinfo=UTC)
END = START + timedelta(hours=24)
NOW = END + timedelta(minutes=5)

# The iris model with forests a tenth as large: most of what a test here would wait for is trees being grown.
IRIS = iris.MODEL.model_copy(
    update={
        "candidates": tuple(
            Candidate(name=one.name, build=partial(_thinned, one.build)) for one in iris.MODEL.candidates
        )
    }
)


@dataclass
class Loop:
    """One installation in memory; every method is what one Airflow task calls."""

    spec: ModelSpec = IRIS
    lake: Any = field(default_factory=LakeTwin)
    tracker: Any = field(default_factory=TrackerTwin)
    decisions: Any = field(default_factory=DecisionTwin)
    files: Any = field(default_factory=OnnxModelFiles)
    validator: Any = field(default_factory=GxValidator)
    reporter: Any = field(default_factory=EvidentlyReporter)
    now: datetime = NOW

    def snapshot(self) -> Snapshot:
        return snapshot(self.spec, self.lake)

    def validate(self, taken: Snapshot) -> dict[str, Any]:
        return validate(
            self.spec, taken, lake=self.lake, validator=self.validator, decisions=self.decisions, now=self.now
        )

    def train(self, taken: Snapshot, reason: str = "data", **more: Any) -> dict[str, Any]:
        return train(
            self.spec,
            taken,
            lake=self.lake,
            tracker=self.tracker,
            registry=self.tracker,
            files=self.files,
            decisions=self.decisions,
            reason=reason,
            code_commit="0" * 40,
            **more,
        )

    def gate(self, run_id: str, reason: str = "data") -> dict[str, Any]:
        return gate_jobs.gate(
            self.spec,
            run_id,
            reason,
            lake=self.lake,
            tracker=self.tracker,
            registry=self.tracker,
            files=self.files,
            decisions=self.decisions,
            now=self.now,
        )

    def register(self, run_id: str, evidence: dict[str, Any]) -> ModelVersion:
        return gate_jobs.register(self.spec, run_id, evidence, tracker=self.tracker, registry=self.tracker)

    def first_champion(self) -> ModelVersion:
        trained = self.train(self.snapshot())
        version = self.register(trained["run_id"], self.gate(trained["run_id"]))
        self.tracker.set_alias(self.spec.name, "champion", version.version)
        return self.tracker.version(self.spec.name, version.version)

    def watch(self, start: datetime = START, end: datetime = END, **more: Any) -> dict[str, Any]:
        return watch(
            self.spec,
            start,
            end,
            lake=self.lake,
            tracker=self.tracker,
            registry=self.tracker,
            files=self.files,
            validator=self.validator,
            reporter=self.reporter,
            decisions=self.decisions,
            now=self.now,
            **more,
        )

    def decide(self, watched: dict[str, Any]) -> dict[str, Any]:
        return retrain_jobs.decide(self.spec, watched, decisions=self.decisions, now=self.now)

    def assemble(self, decision: dict[str, Any]) -> Snapshot:
        return retrain_jobs.assemble(
            self.spec,
            decision,
            lake=self.lake,
            registry=self.tracker,
            validator=self.validator,
            decisions=self.decisions,
            now=self.now,
        )

    def traffic(
        self,
        rows: int,
        *,
        shifts: dict[str, float] | None = None,
        labels: bool = False,
        start: datetime = START,
        end: datetime = END,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Log `rows` answered by the champion, evenly spread over the window; as `slipway simulate` draws them."""
        random = np.random.default_rng(seed)
        source = self.spec.loader()
        drawn = source.iloc[random.integers(0, len(source), rows)].reset_index(drop=True)
        for feature in self.spec.features:
            name = feature.name
            if feature.kind == "text":
                drawn[name] = [cut_text(text, (shifts or {}).get(name, 0.0)) for text in drawn[name]]
                continue
            drawn[name] += random.normal(0, 0.01 * source[name].std(), rows) + (shifts or {}).get(name, 0.0)
            drawn[name] = drawn[name].clip(feature.minimum, feature.maximum)
        champion = self.tracker.by_alias(self.spec.name, "champion")
        scorer = self.files.read(self.tracker.artefacts / champion.run_id / "model")
        answers = scorer.predict(drawn)
        logged = drawn[list(self.spec.feature_names)].round(6)  # which leaves texts as they are
        logged["request_id"] = [str(uuid.UUID(int=random.integers(0, 2**63))) for _ in range(rows)]
        logged["row"] = 0
        step = (end - start) / rows
        logged["ts"] = pd.to_datetime([start + index * step for index in range(rows)], utc=True)
        logged = logged.assign(version=champion.version, slot="blue", shadow=False, latency_ms=1.0)
        logged["prediction"] = plain_predictions(self.spec, answers)
        self.lake.logged = pd.concat([self.lake.logged, logged], ignore_index=True)
        if labels:
            given = logged[["request_id", "row", "ts"]].assign(label=drawn[self.spec.target.name])
            earlier = [self.lake.labelled] if len(self.lake.labelled) else []
            self.lake.labelled = pd.concat([*earlier, given], ignore_index=True)
        return logged
