"""What every tracker and registry must do; run over MLflow itself and over the twin."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.mlflow_server import mlflow_server
from contracts.tracker_twin import TrackerTwin
from fleet import iris
from slipway.adapters.mlflow import MlflowTracker
from slipway.errors import NotFoundError, RegistryError
from slipway.ports import Snapshot

SPEC = iris.MODEL
SNAPSHOT = Snapshot("iris", "a" * 64, 150, "/lake/datasets/a.parquet", "loader", datetime(2026, 11, 20, tzinfo=UTC))


@pytest.fixture(params=["twin", pytest.param("mlflow", marks=pytest.mark.services)])
def tracker(request: pytest.FixtureRequest) -> Any:
    return TrackerTwin() if request.param == "twin" else MlflowTracker(request.getfixturevalue("mlflow_uri"))


@pytest.fixture
def model() -> str:
    return f"m{uuid.uuid4().hex[:12]}"


def model_folder(folder: Path) -> Path:
    (folder / "model" / "native").mkdir(parents=True)
    (folder / "model" / "model.onnx").write_bytes(b"\x00onnx")
    (folder / "model" / "schema.json").write_text("{}")
    (folder / "model" / "native" / "a b.txt").write_text("native")
    return folder


def finished_run(tracker: Any, model: str, folder: Path, **tags: str) -> str:
    run_id = str(tracker.start_run(model, "candidate", {"slipway.key": "k", **tags}))
    tracker.upload_model(SPEC, run_id, model_folder(folder))
    tracker.finish(run_id)
    return run_id


def test_a_run_is_found_by_all_of_its_tags(tracker: Any, model: str) -> None:
    run_id = tracker.start_run(model, "forest", {"slipway.key": "one", "slipway.candidate": "forest"})
    tracker.start_run(model, "other", {"slipway.key": "two"})
    assert [run.run_id for run in tracker.find_runs(model, {"slipway.key": "one"})] == [run_id]
    assert not tracker.find_runs(model, {"slipway.key": "one", "slipway.candidate": "other"})
    assert not tracker.find_runs(model + "x", {"slipway.key": "one"})


def test_what_is_logged_can_be_read_and_a_repeat_changes_nothing(tracker: Any, model: str) -> None:
    run_id = tracker.start_run(model, "forest", {})
    for _ in range(2):
        tracker.log(run_id, params={"depth": 5, "none": None}, metrics={"accuracy": 0.5}, tags={"slipway.gate": "pass"})
        tracker.log_dataset(run_id, SPEC, SNAPSHOT)
    run = tracker.run(run_id)
    assert run.metrics == {"accuracy": 0.5}
    assert run.tags["slipway.gate"] == "pass"
    assert not run.finished
    tracker.finish(run_id)
    assert tracker.run(run_id).finished


def test_artefacts_come_back_as_they_went(tracker: Any, model: str, tmp_path: Path) -> None:
    run_id = finished_run(tracker, model, tmp_path / "up")
    whole = tracker.download(run_id, "model", tmp_path / "whole")
    assert (whole / "model.onnx").read_bytes() == b"\x00onnx"
    assert (whole / "native" / "a b.txt").read_text() == "native"
    part = tracker.download(run_id, "model", tmp_path / "part", without=("native",))
    assert (part / "schema.json").is_file()
    assert not (part / "native").exists()
    with pytest.raises(NotFoundError, match="train again"):
        tracker.download(run_id, "nothing", tmp_path)


@pytest.mark.services
def test_artefacts_can_be_in_object_storage(bucket: str, model: str, tmp_path: Path) -> None:
    server = tmp_path / "server"
    server.mkdir()
    with mlflow_server(server, f"{bucket}/mlflow") as uri:
        tracker = MlflowTracker(uri)
        run_id = finished_run(tracker, model, tmp_path / "up")
        fetched = tracker.download(run_id, "model", tmp_path / "down")
        assert (fetched / "model.onnx").read_bytes() == b"\x00onnx"
        tracker.delete_artifacts(run_id)
    assert not any(server.rglob("model.onnx"))


def test_a_run_is_registered_once(tracker: Any, model: str, tmp_path: Path) -> None:
    first = finished_run(tracker, model, tmp_path / "1")
    second = finished_run(tracker, model, tmp_path / "2")
    version = tracker.register(model, first, {"slipway.snapshot": "a"}, "A model.")
    assert version.version == "1"
    assert version.tags["slipway.snapshot"] == "a"
    assert tracker.register(model, first, {"slipway.snapshot": "a"}, "A model.").version == "1"
    assert tracker.register(model, second, {}, "A model.").version == "2"
    assert [one.run_id for one in tracker.versions(model)] == [first, second]


def test_aliases_move_and_are_named_by_every_way_of_asking(tracker: Any, model: str, tmp_path: Path) -> None:
    for index in range(2):
        tracker.register(model, finished_run(tracker, model, tmp_path / str(index)), {}, "")
    assert tracker.by_alias(model, "champion") is None
    tracker.set_alias(model, "champion", "1")
    tracker.set_alias(model, "champion", "2")
    assert tracker.by_alias(model, "champion").version == "2"
    assert tracker.version(model, "2").aliases == ("champion",)
    assert [one.aliases for one in tracker.versions(model)] == [(), ("champion",)]


def test_tags_of_a_version_are_added(tracker: Any, model: str, tmp_path: Path) -> None:
    tracker.register(model, finished_run(tracker, model, tmp_path), {"a": "1"}, "")
    tracker.tag(model, "1", {"b": "2", "a": "3"})
    assert tracker.version(model, "1").tags == {"a": "3", "b": "2"}


def test_what_does_not_exist_is_said_to_be_missing(tracker: Any, model: str) -> None:
    assert list(tracker.versions(model)) == []
    assert tracker.by_alias(model, "champion") is None
    with pytest.raises(NotFoundError, match="no version '7'"):
        tracker.version(model, "7")
    with pytest.raises(NotFoundError, match="no run"):
        tracker.run("f" * 32)


def test_a_stopped_server_is_reported_at_once() -> None:
    with pytest.raises(RegistryError, match="slipway logs mlflow"):
        MlflowTracker("http://127.0.0.1:9").versions("iris")
