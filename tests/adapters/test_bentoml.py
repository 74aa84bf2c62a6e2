"""Bentos built by the serving environment from a registered version."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from contracts.services import eventually, free_port, stop
from contracts.tracker_twin import TrackerTwin
from fleet import iris
from slipway.adapters.bentoml import BentoPackager, digest_of
from slipway.adapters.onnx import OnnxModelFiles
from slipway.core.encoding import encode_target, feature_matrix
from slipway.errors import ArtefactError, NotFoundError
from slipway.jobs.package import package
from slipway.settings import PROJECT_DIR

pytestmark = pytest.mark.services
SPEC = iris.MODEL
PYTHON = PROJECT_DIR / "bentos" / ".venv" / "bin" / "python"


def register(tracker: TrackerTwin, folder: Path) -> None:
    frame = iris.load()
    matrix = feature_matrix([(feature.name, feature.kind) for feature in SPEC.features], frame)
    fitted = SPEC.candidates[2].build().fit(matrix, encode_target(SPEC.target.classes, frame["species"].to_numpy()))
    OnnxModelFiles().write(SPEC, fitted, frame, folder)
    run_id = tracker.start_run("iris", "logistic", {})
    tracker.upload_model(SPEC, run_id, folder)
    tags = {"slipway.snapshot": "a" * 64, "slipway.code_commit": "b" * 40, "slipway.gate": '{"verdict": "pass"}'}
    version = tracker.register("iris", run_id, tags, "")
    tracker.set_alias("iris", "challenger", version.version)


@pytest.fixture
def tracker(tmp_path: Path) -> TrackerTwin:
    twin = TrackerTwin()
    register(twin, tmp_path / "files")
    return twin


@pytest.fixture
def packager(tracker: TrackerTwin, tmp_path: Path) -> BentoPackager:
    return BentoPackager(tracker, tracker, PYTHON, PROJECT_DIR / "bentos", tmp_path / "home")


def test_a_version_becomes_a_bento_that_serves_it(
    tracker: TrackerTwin, packager: BentoPackager, tmp_path: Path
) -> None:
    built = package("iris", None, packager=packager, registry=tracker)
    assert built.bento_tag == "iris:v1"
    assert built.evidence == {"verdict": "pass"}
    identity = json.loads((built.path / "src" / "artefacts" / "identity.json").read_text())
    assert identity["version"] == "1"
    assert identity["dataset_sha256"] == "a" * 64
    assert tracker.version("iris", "1").tags["slipway.bento_digest"] == built.digest

    port = free_port()
    command = [str(PYTHON), "-m", "bentoml", "serve", str(built.path), "--host", "127.0.0.1", "--port", str(port)]
    environment = {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "True", "PATH": "/usr/bin:/bin"}
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen([*command, "--api-workers", "1"], env=environment, stdout=log, stderr=log)
    try:
        eventually(lambda: httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200, 60, "the bento")
        answer = httpx.post(f"http://127.0.0.1:{port}/predict/iris", json=dict(SPEC.golden_rows[1]))
        assert answer.json()["prediction"] == "versicolor"
        assert answer.json()["model_version"] == "1"
    finally:
        stop(server)
    packager.verify(built)  # serving leaves nothing in the bento that would count as damage


def test_building_again_reuses_what_is_intact(packager: BentoPackager) -> None:
    first = packager.build("iris", "1")
    before = (first.path / "bento.yaml").stat().st_mtime_ns
    second = packager.build("iris", "1")
    assert second == first
    assert (second.path / "bento.yaml").stat().st_mtime_ns == before


def test_damage_is_refused_by_verify_and_repaired_by_build_to_the_same_digest(packager: BentoPackager) -> None:
    first = packager.build("iris", "1")
    (first.path / "src" / "artefacts" / "golden.json").write_text("{}")
    with pytest.raises(ArtefactError, match="differs"):
        packager.verify(first)
    again = packager.build("iris", "1")
    assert again.digest == first.digest
    packager.verify(again)
    (first.path / "src" / "artefacts" / "model.onnx").unlink()
    with pytest.raises(ArtefactError, match="differs"):
        packager.verify(first)


def test_a_bento_of_another_run_with_the_same_number_is_not_reused(packager: BentoPackager, tmp_path: Path) -> None:
    first = packager.build("iris", "1")
    other = TrackerTwin()
    other.start_run("iris", "earlier", {})
    register(other, tmp_path / "other")
    rebuilt = BentoPackager(other, other, PYTHON, PROJECT_DIR / "bentos", tmp_path / "home").build("iris", "1")
    assert rebuilt.digest != first.digest
    with pytest.raises(ArtefactError, match="differs"):
        packager.verify(first)


def test_incomplete_files_and_failing_builds_are_named(tracker: TrackerTwin, tmp_path: Path) -> None:
    broken = tmp_path / "bentos"
    broken.mkdir()
    (broken / "service.py").write_text("raise RuntimeError('no service here')\n")
    packager = BentoPackager(tracker, tracker, PYTHON, broken, tmp_path / "home")
    with pytest.raises(ArtefactError, match="no service here"):
        packager.build("iris", "1")
    run_id = tracker.version("iris", "1").run_id
    (tracker.artefacts / run_id / "model" / "golden.json").unlink()
    with pytest.raises(ArtefactError, match=r"lacks golden\.json"):
        packager.build("iris", "1")
    with pytest.raises(NotFoundError):
        packager.build("iris", "2")


def test_without_a_challenger_there_is_nothing_to_package(packager: BentoPackager) -> None:
    with pytest.raises(NotFoundError, match="no challenger"):
        package("iris", None, packager=packager, registry=TrackerTwin())


def test_the_digest_ignores_bytecode_and_the_time_of_building(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "service.py").write_text("x = 1\n")
    (tmp_path / "bento.yaml").write_text("name: iris\ncreation_time: '2026'\n")
    before = digest_of(tmp_path)
    (tmp_path / "src" / "__pycache__").mkdir()
    (tmp_path / "src" / "__pycache__" / "service.pyc").write_bytes(b"x")
    (tmp_path / "bento.yaml").write_text("name: iris\ncreation_time: '2027'\n")
    assert digest_of(tmp_path) == before
    (tmp_path / "bento.yaml").write_text("name: rose\ncreation_time: '2027'\n")
    assert digest_of(tmp_path) != before
