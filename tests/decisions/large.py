"""The time and memory of one drift verdict over millions of logged rows, in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from decisions.case import Case, Outcome

__all__ = ["CASES"]

_START = datetime(2026, 11, 20, tzinfo=UTC)
_FILE_ROWS = 1_000_000
_LABEL_SHARE = 0.01


def _run(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "decisions.large", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _case(rows: int, seconds: float, gigabytes: float) -> Case:
    def run(scale: float) -> list[Outcome]:
        count = max(200_000, int(rows * scale))
        with tempfile.TemporaryDirectory(prefix="slipway-") as folder:
            _run("prepare", folder, str(count))
            done = _run("watch", folder)
        name = f"drift verdict over {count:,} rows"
        return [
            Outcome(name, done["seconds"], seconds, True, 1, "s", {"verdict": done["verdict"]}),
            Outcome(f"{name}: memory", done["peak_gb"], gigabytes, True, 1, "GB", {"said": done["reasons"][-1]}),
        ]

    return Case(f"{rows:,} logged rows", run)


CASES = [_case(1_000_000, 15.0, 2.0), _case(10_000_000, 60.0, 2.0)]


def _prepare(folder: Path, rows: int) -> None:
    """A lake with one day's log of the housing model, of which one row in a hundred has its label."""
    import pyarrow as pa

    from fleet import housing
    from slipway.adapters.lake import ParquetLake

    source, random = housing.stand_in(), np.random.default_rng(0)
    lake, day = ParquetLake(str(folder / "lake")), date(2026, 11, 20)
    types = {"request_id": "string", "row": "int32", "ts": "timestamp", "version": "string", "slot": "string",
             "shadow": "bool", "latency_ms": "double", "prediction": "double",
             **dict.fromkeys(housing.MODEL.feature_names, "double")}  # fmt: skip
    for first in range(0, rows, _FILE_ROWS):
        count = min(_FILE_ROWS, rows - first)
        drawn = source.iloc[random.integers(0, len(source), count)]
        micros = (np.arange(first, first + count) * (86_400_000_000 / rows)).astype("timedelta64[us]")
        ids = [f"{index:032x}" for index in range(first, first + count)]
        stamps = pa.array(np.datetime64(_START.replace(tzinfo=None), "us") + micros, pa.timestamp("us", "UTC"))
        columns = {"request_id": ids, "row": np.zeros(count, np.int32), "ts": stamps, "version": ["1"] * count,
                   "slot": ["blue"] * count, "shadow": np.zeros(count, bool), "latency_ms": np.ones(count),
                   "prediction": drawn["MedHouseVal"].to_numpy(),
                   **{name: drawn[name].to_numpy() for name in housing.MODEL.feature_names}}  # fmt: skip
        lake.write_log("predictions", "housing", day, f"s{first:012d}", columns, types)
        some = np.flatnonzero(random.random(count) < _LABEL_SHARE)
        labels = {"request_id": [ids[at] for at in some], "row": np.zeros(len(some), np.int32),
                  "label": [str(value) for value in drawn["MedHouseVal"].to_numpy()[some]],
                  "ts": stamps.take(pa.array(some))}  # fmt: skip
        kinds = {"request_id": "string", "row": "int32", "label": "string", "ts": "timestamp"}
        lake.write_log("labels", "housing", day, f"s{first:012d}", labels, kinds)


def _watch(folder: Path) -> None:
    from fleet import housing
    from jobs.loop_cases import Loop
    from slipway.adapters.lake import ParquetLake

    spec = housing.MODEL.model_copy(update={"loader": housing.stand_in, "candidates": housing.MODEL.candidates[2:]})
    loop = Loop(spec=spec, lake=ParquetLake(str(folder / "lake")))
    loop.first_champion()
    began = time.perf_counter()
    watched = loop.watch(_START, _START + timedelta(days=1))
    seconds = time.perf_counter() - began
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    about = {"verdict": watched["verdict"], "reasons": watched["reasons"]}
    print(json.dumps({"seconds": seconds, "peak_gb": peak_gb, **about}))


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        _prepare(Path(sys.argv[2]), int(sys.argv[3]))
        print("{}")
    else:
        os.environ.setdefault("TZ", "UTC")
        _watch(Path(sys.argv[2]))
