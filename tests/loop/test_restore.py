"""A backup of the serving stack, everything destroyed, and the same champion, history and predictions again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from loop.conftest import Stack, wait_until
from loop.open_load import OpenLoad
from loop.test_loop import ROW, lake_column, wait_for_rows
from slipway.wiring import Wiring

pytestmark = pytest.mark.stack
ROWS = [ROW | {"petal_length": 1.0 + step / 4, "petal_width": 0.2 + step / 10} for step in range(20)]


def answers(stack: Stack) -> list[tuple[Any, ...]]:
    """What every live model says to its golden rows, and iris to some more."""
    told = []
    slipway = Wiring(stack.settings())
    with stack.gateway as client:
        for model, facts in sorted(stack.models().items()):
            rows = ROWS if model == "iris" else list(slipway.spec(model).golden_rows)
            for row in rows if facts["live_version"] else ():
                body = client.post(f"/predict/{model}", json=row).json()
                told.append((model, body["model_version"], body["prediction"], body.get("probabilities")))
    return told


def history(stack: Stack) -> dict[str, Any]:
    """Everything that the stack remembers: ledger, decisions, versions with aliases, runs of workflows."""
    slipway = Wiring(stack.settings())
    versions = slipway.mlflow.versions("iris")
    return {
        "ledger": stack.ledger(),
        "decisions": stack.ledger("--decisions"),
        "versions": sorted((one.version, one.run_id, tuple(sorted(one.tags.items()))) for one in versions),
        "champion": slipway.mlflow.by_alias("iris", "champion").version,
        "slots": {model: (facts["live_version"], facts["slots"]) for model, facts in stack.models().items()},
        "runs": sorted(run["dag_run_id"] for run in slipway.airflow.runs("iris_train")),
    }


def test_everything_destroyed_comes_back(stack: Stack, tmp_path: Path) -> None:
    if not stack.models().get("iris", {}).get("live_version"):
        stack.cli("demo", "iris")
    stack.env["SLIPWAY_BACKUP_DIR"] = str(tmp_path / "backups")
    said, known = answers(stack), history(stack)
    with OpenLoad(stack.settings().gateway_port, "iris", ROW, rate=50) as load:
        wait_until(lambda: len(load.replies) > 50, 10, "the load to flow")
        before = time.time()
        out = stack.cli("backup", "--keep", "2").stdout
    assert load.failures() == []
    assert str(tmp_path / "backups") in out
    answered = {reply.request_id for reply in load.replies if reply.done < before}
    stack.cli("down")
    shutil.rmtree(stack.home)

    restored = stack.cli("restore").stdout
    assert f"iris: version {known['champion']} is live" in restored
    assert answers(stack) == said
    assert history(stack) == known
    wait_for_rows(stack, answered)
    logged = lake_column(stack, "predictions", "request_id")
    assert len(logged) == len(set(logged)), "what was shipped while it was copied is there once"
    assert "agree" in stack.cli("doctor", check=False).stdout
