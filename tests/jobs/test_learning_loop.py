"""The learning loop on a real MLflow server and a real Parquet lake."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from contracts.lake_twin import LakeTwin
from jobs.loop_cases import START, Loop
from slipway.adapters.lake import ParquetLake
from slipway.adapters.mlflow import MlflowTracker
from slipway.jobs.holdout import TIME_COLUMN

pytestmark = pytest.mark.services
_TYPES = {"row": "int32", "ts": "timestamp", "shadow": "bool", "latency_ms": "double"}


class ShippedLake(ParquetLake):
    """A Parquet lake that takes the frames which `Loop.traffic` logs, as the keeper ships segments."""

    def ship(self, twin: LakeTwin, model: str, features: tuple[str, ...]) -> None:
        for kind, frame in (("predictions", twin.logged), ("labels", twin.labelled)):
            ts = pd.to_datetime(frame["ts"], utc=True)
            frame = frame.assign(row=frame["row"].astype(int), ts=[one.to_pydatetime() for one in ts])
            types = {name: _TYPES.get(name, "double" if name in features else "string") for name in frame}
            for day, rows in frame.groupby(ts.dt.date):
                columns = {str(name): rows[name].tolist() for name in rows}
                self.write_log(kind, model, day, f"segment-{day}-0", columns, types)  # type: ignore[arg-type]


@pytest.fixture
def loop(mlflow_uri: str, tmp_path: Path) -> Loop:
    tracker: Any = MlflowTracker(mlflow_uri)
    loop = Loop(lake=ShippedLake(str(tmp_path / "lake")), tracker=tracker)
    name = f"iris_{os.urandom(4).hex()}"
    loop.spec = loop.spec.model_copy(update={"name": name})
    return loop


def log_traffic(loop: Loop, folder: Path, shifts: dict[str, float]) -> None:
    champion = loop.tracker.by_alias(loop.spec.name, "champion")
    loop.tracker.download(champion.run_id, "model", folder / champion.run_id)
    twin = Loop(spec=loop.spec, tracker=_Artefacts(loop.tracker, folder))
    twin.traffic(1000, labels=True, shifts=shifts)
    loop.lake.ship(twin.lake, loop.spec.name, loop.spec.feature_names)


class _Artefacts:
    def __init__(self, tracker: MlflowTracker, folder: Path) -> None:
        self._tracker, self.artefacts = tracker, folder

    def by_alias(self, model: str, alias: str) -> Any:
        return self._tracker.by_alias(model, alias)


def test_from_loader_to_a_retrained_champion(loop: Loop, tmp_path: Path) -> None:
    taken = loop.snapshot()
    assert loop.validate(taken)["verdict"] == "passed"
    first = loop.first_champion()
    assert loop.train(taken)["skipped"]
    log_traffic(loop, tmp_path / "models", {"petal_length": 1.5})

    watched = loop.watch()
    assert watched["verdict"] == "drift"
    assert Path(watched["reports"]["drift"]).stat().st_size > 100_000
    decision = loop.decide(watched)
    assembled = loop.assemble(decision)
    assert loop.assemble(decision) == assembled
    frame = loop.lake.read_snapshot(assembled)
    assert frame[TIME_COLUMN].isna().sum() == 150
    assert frame[TIME_COLUMN].max().to_pydatetime().astimezone(UTC) < START + timedelta(days=1)

    trained = loop.train(assembled, "drift")
    assert loop.train(assembled, "drift") == trained
    evidence = loop.gate(trained["run_id"], "drift")
    assert evidence["verdict"] == "pass"
    version = loop.register(trained["run_id"], evidence)
    assert loop.register(trained["run_id"], evidence).version == version.version
    assert [one.version for one in loop.tracker.versions(loop.spec.name)] == [first.version, version.version]
    assert version.tags["slipway.snapshot"] == assembled.sha256
    assert version.tags["slipway.data_until"] == frame[TIME_COLUMN].max().isoformat()

    loop.tracker.set_alias(loop.spec.name, "champion", version.version)
    after = loop.watch()
    assert after["verdict"] == "no_drift"
    assert after["quality"]["new_labels"] == 0
    assert loop.decide(after)["verdict"] == "not_needed"


def test_mlflow_itself_can_load_and_score_a_version(loop: Loop, mlflow_uri: str) -> None:
    loop.first_champion()
    script = (
        "import json, sys, warnings; warnings.simplefilter('ignore')\n"
        "import mlflow.pyfunc, pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "rows = pd.DataFrame(json.loads(sys.argv[2]))\n"
        "print([int(value) for value in model.predict(rows)], list(model.metadata.signature.inputs.input_names()))\n"
    )
    rows = pd.DataFrame(list(loop.spec.golden_rows)).to_json(orient="records")
    uri = f"models:/{loop.spec.name}@champion"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    done = subprocess.run(
        [sys.executable, "-c", script, uri, rows], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"{np.arange(3).tolist()} {list(loop.spec.feature_names)}"
