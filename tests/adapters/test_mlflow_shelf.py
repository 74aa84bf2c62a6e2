"""Housekeeping in MLflow itself: versions with an alias stay, runs go with rows and artefacts."""

from __future__ import annotations

import uuid
from pathlib import Path

import httpx
import pytest

from slipway.adapters.mlflow import MlflowTracker
from slipway.adapters.mlflow_shelf import MlflowShelf
from slipway.errors import RegistryError

pytestmark = pytest.mark.services


def store_of(uri: str) -> str:
    """The SQLite file of the test's server, from its command line."""
    port = uri.rsplit(":", 1)[-1]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        words = process.read_bytes().decode(errors="replace").split("\0")
        if port in words and "--backend-store-uri" in words:
            return words[words.index("--backend-store-uri") + 1]
    raise AssertionError("no server")


def test_versions_and_runs_go_for_good(mlflow_uri: str, tmp_path: Path) -> None:
    tracker = MlflowTracker(mlflow_uri)
    shelf = MlflowShelf(tracker, mlflow_uri, store_of(mlflow_uri))
    model = f"m{uuid.uuid4().hex[:12]}"
    assert shelf.versions(model) == []
    assert shelf.runs(model) == []
    assert shelf.purge(model) == 0
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_bytes(b"onnx")
    runs = []
    for _ in range(2):
        run_id = tracker.start_run(model, "one", {"slipway.key": "k", "slipway.snapshot": "s"})
        tracker.upload(run_id, tmp_path)
        tracker.log(run_id, metrics={"accuracy": 0.9}, params={"a": 1})
        tracker.finish(run_id)
        tracker.register(model, run_id, {}, "a model")
        runs.append(run_id)
    tracker.set_alias(model, "champion", "2")
    with pytest.raises(RegistryError, match="champion"):
        shelf.remove_version(model, "2")
    shelf.remove_version(model, "1")
    shelf.remove_version(model, "1")
    assert [one.version for one in shelf.versions(model)] == ["2"]
    assert [one.tags["slipway.snapshot"] for one in shelf.runs(model)] == ["s", "s"]

    shelf.remove_run(runs[0])
    assert [one.name for one in shelf.runs(model)] == [runs[1]]
    by_hand = tracker.start_run(model, "by hand", {})
    tracker.call("POST", "runs/delete", {"run_id": by_hand})
    assert shelf.purge(model) == 1
    assert shelf.purge(model) == 0
    gone = httpx.get(f"{mlflow_uri}/api/2.0/mlflow/runs/get", params={"run_id": runs[0]})
    assert gone.json()["error_code"] == "RESOURCE_DOES_NOT_EXIST"
    assert tracker.run(by_hand).run_id == by_hand, "what a person deleted is theirs to restore"
    assert not list(Path(store_of(mlflow_uri).removeprefix("sqlite:///")).parent.rglob(runs[0]))
    assert tracker.download(runs[1], "model", tmp_path / "again").joinpath("model.onnx").read_bytes() == b"onnx"
