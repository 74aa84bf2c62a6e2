"""A regression with missing values and a text model of the fleet, each beside FastAPI with the same estimator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import contest
from bench.servers import Server

__all__ = ["NAMES", "FleetModel", "prepare"]

NAMES = ("housing", "code_language")
_ROWS = 6000
_DIFFERENT = 16


@dataclass(frozen=True)
class FleetModel:
    """One model: its bento, the peer, and rows to ask for.

    Attributes:
        servers: "slipway" and "fastapi_sklearn".
        format: of the model in the bento, onnx or skops.
    """

    name: str
    servers: Mapping[str, Server]
    rows: list[dict[str, Any]]
    format: str

    def bodies(self, batch: int) -> list[str]:
        """Different requests of `batch` rows, a single row as a flat object."""
        if batch == 1:
            return [json.dumps(row) for row in self.rows[:_DIFFERENT]]
        starts = range(0, 4 * batch, batch)
        return [json.dumps({"rows": [self.rows[(s + i) % len(self.rows)] for i in range(batch)]}) for s in starts]


def prepare(name: str, work: Path, spool: Path) -> FleetModel:
    """Fit the model's first candidate and write it for both servers."""
    import joblib

    from slipway.adapters.onnx import OnnxModelFiles
    from slipway.core.encoding import encode_target, feature_matrix
    from slipway.spec import load_model

    spec = load_model(contest.PROJECT / "include" / "fleet", name)
    frame = spec.loader()
    frame = frame.sample(min(_ROWS, len(frame)), random_state=7).reset_index(drop=True)
    fields = [(feature.name, feature.kind) for feature in spec.features]
    target = encode_target(spec.target.classes, frame[spec.target.name].to_numpy())
    estimator = spec.candidates[0].build().fit(feature_matrix(fields, frame), target)
    folder = work / name
    written = OnnxModelFiles().write(spec, estimator, frame.head(1000), folder / "run")
    joblib.dump(estimator, folder / "model.joblib")
    bento = contest.bento(name, folder / "run", folder / "bentoml")
    environment = {
        "BENCH_JOBLIB": str(folder / "model.joblib"),
        "BENCH_FIELDS": json.dumps(fields),
        "BENCH_CLASSES": json.dumps(spec.target.classes),
    }
    names = list(spec.feature_names)
    rows = json.loads(frame[names].head(1000).to_json(orient="records"))
    return FleetModel(
        name,
        {
            "slipway": contest.slipway(bento, spool, model=name),
            "fastapi_sklearn": contest.uvicorn("fastapi_fleet", contest.PEERS_PYTHON, "/batch", environment),
        },
        rows,
        str(written["format"]),
    )
