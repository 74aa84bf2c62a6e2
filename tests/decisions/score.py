"""Batch scoring measured: speed on one core beside scikit-learn on the same file, and memory at 20 million rows.

Each side runs in a process of its own, pinned to one core, so that its peak memory is its own.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from decisions.case import Case, Outcome

__all__ = ["CASES"]

_ROWS = 20_000_000
_GROUP_ROWS = 250_000
_ROUNDS = 3
_SPEED_ROWS = 2_000_000


def _run(*arguments: str) -> dict[str, Any]:
    """One side in a process of its own."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "decisions.score", *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def speed(scale: float) -> list[Outcome]:
    """Rows per second and the ratio to `sklearn.predict` with the same file in and a file out, interleaved."""
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        folder = Path(scratch)
        rows = max(200_000, int(_SPEED_ROWS * scale))
        _run("prepare", str(folder), str(rows))
        ours, theirs = [], []
        for number in range(_ROUNDS):
            ours.append(rows / _run("slipway", str(folder), str(number))["seconds"])
            theirs.append(rows / _run("sklearn", str(folder), str(number))["seconds"])
    rate, peer = statistics.median(ours), statistics.median(theirs)
    notes = {"sklearn_rows_per_second": round(peer), "beside": f"sklearn.predict {peer:,.0f} rows/s"}
    return [
        Outcome("batch scoring, rows a second on one core", rate, 500_000, False, _ROUNDS, "rows/s", notes),
        Outcome("batch scoring by sklearn.predict on the same file", rate / peer, 1.0, False, _ROUNDS, "times"),
    ]


def memory(scale: float) -> list[Outcome]:
    """Peak memory of the whole process over 20 million rows."""
    rows = max(1_000_000, int(_ROWS * scale))
    with tempfile.TemporaryDirectory(prefix="slipway-") as scratch:
        _run("prepare", scratch, str(rows))
        done = _run("slipway", scratch, "0")
    notes = {"rows": rows, "rows_per_second": round(rows / done["seconds"])}
    return [Outcome("batch scoring, peak memory", done["peak_gb"], 1.0, True, 1, "GB", notes)]


CASES = [Case("batch scoring: speed", speed), Case("batch scoring: memory", memory)]


def _prepare(folder: Path, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fleet import iris
    from slipway.adapters import skops
    from slipway.adapters.onnx import OnnxModelFiles

    source = iris.load()
    names = list(iris.MODEL.feature_names)
    codes = source["species"].map({name: code for code, name in enumerate(iris.MODEL.target.classes or ())})
    forest = iris.forest_100().fit(source[names].to_numpy(), codes.to_numpy())
    OnnxModelFiles().write(iris.MODEL, forest, source, folder)
    (folder / "native").mkdir()
    skops.dump(forest, folder / "native")
    random, writer = np.random.default_rng(0), None
    for first in range(0, rows, _GROUP_ROWS):
        count = min(_GROUP_ROWS, rows - first)
        drawn = source[names].to_numpy()[random.integers(0, len(source), count)]
        drawn = np.abs(drawn + random.normal(0.0, 0.05, drawn.shape)).round(3)
        table = pa.table({name: drawn[:, index] for index, name in enumerate(names)})
        writer = writer or pq.ParquetWriter(folder / "in.parquet", table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _slipway(folder: Path, run: str) -> None:
    from contracts.tracker_twin import TrackerTwin
    from fleet import iris
    from slipway.adapters.onnx import OnnxModelFiles
    from slipway.adapters.score_files import ScoreFiles
    from slipway.jobs.score import score
    from slipway.ports import ModelVersion

    class Twin(TrackerTwin):
        def by_alias(self, model: str, alias: str) -> ModelVersion:
            return ModelVersion(model, "1", f"run-{run}", datetime.now(UTC))

        def download(self, *_: Any, **__: Any) -> Path:
            return folder / "model"

    twin = Twin()
    store, files = ScoreFiles(str(folder / "lake")), OnnxModelFiles()
    began = time.perf_counter()
    score(iris.MODEL, str(folder / "in.parquet"), store=store, registry=twin, tracker=twin, files=files)
    _tell(time.perf_counter() - began)


def _sklearn(folder: Path, run: str) -> None:
    import pandas as pd

    from fleet import iris
    from slipway.adapters import skops

    forest = skops.load(folder / "native")
    began = time.perf_counter()
    frame = pd.read_parquet(folder / "in.parquet")
    classes = np.array(iris.MODEL.target.classes, dtype=object)
    guess = classes[forest.predict(frame.to_numpy())]
    pd.DataFrame({"prediction": guess}).to_parquet(folder / f"sklearn-{run}.parquet")
    _tell(time.perf_counter() - began)


def _tell(seconds: float) -> None:
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak_gb": peak_kb * 1024 / 1e9}))


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if what == "prepare":
        _prepare(Path(where), int(rest[0]))
        print("{}")
    else:
        {"slipway": _slipway, "sklearn": _sklearn}[what](Path(where), rest[0])
