"""Making a version once more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.loop_cases import IRIS, Loop
from slipway.adapters.lake import ParquetLake
from slipway.adapters.mlflow import MlflowTracker
from slipway.errors import DataError, NotFoundError
from slipway.jobs.reproduce import reproduce
from slipway.spec import Candidate

LOCK = "1" * 64


def again(loop: Loop, version: str = "1", *, code_commit: str = "0" * 40, lock: str = LOCK) -> dict[str, Any]:
    return reproduce(
        loop.spec,
        version,
        lake=loop.lake,
        tracker=loop.tracker,
        registry=loop.tracker,
        files=loop.files,
        code_commit=code_commit,
        lock_sha256=lock,
    )


def champion_of(*candidates: str) -> Loop:
    chosen = tuple(one for one in IRIS.candidates if one.name in candidates)
    loop = Loop(spec=IRIS.model_copy(update={"candidates": chosen}))
    trained = loop.train(loop.snapshot(), lock_sha256=LOCK)
    loop.register(trained["run_id"], loop.gate(trained["run_id"]))
    return loop


@pytest.fixture(scope="module")
def loop() -> Loop:
    return champion_of("forest_50")


def test_the_same_data_code_and_lock_give_the_same_bytes(loop: Loop) -> None:
    found = again(loop)
    assert found["identical"]
    assert found["sha256"] == found["recorded_sha256"]
    assert (found["differing_rows"], found["largest_difference"]) == (0, 0.0)
    assert found["reasons"] == ("the same model file and the same answers",)
    assert len(loop.tracker.runs) == 1  # nothing was stored


def test_what_differs_from_the_record_is_said(loop: Loop) -> None:
    found = again(loop, code_commit="f" * 40, lock="2" * 64)
    assert found["identical"]
    assert [reason.split(":")[0] for reason in found["reasons"][1:]] == ["other code", "other locked requirements"]


def test_another_candidate_of_the_same_name_differs(loop: Loop) -> None:
    def other() -> Any:
        from sklearn.ensemble import RandomForestClassifier

        return RandomForestClassifier(n_estimators=3, random_state=1)

    changed = Loop(spec=loop.spec.model_copy(update={"candidates": (Candidate(name="forest_50", build=other),)}))
    changed.lake, changed.tracker = loop.lake, loop.tracker
    found = again(changed, code_commit="f" * 40)
    assert not found["identical"]
    assert found["largest_difference"] > 0
    assert "other code" in found["reasons"][0]
    silent = again(changed)
    assert "not repeatable" in silent["reasons"][0]


def test_what_is_gone_is_named(loop: Loop) -> None:
    gone = Loop(spec=loop.spec.model_copy(update={"candidates": IRIS.candidates[1:]}))
    gone.lake, gone.tracker = loop.lake, loop.tracker
    with pytest.raises(NotFoundError, match="no candidate 'forest_50' any more"):
        again(gone)
    gone.lake = type(loop.lake)()
    with pytest.raises(NotFoundError, match=r"snapshot .* is not in the lake any more"):
        again(gone)
    with pytest.raises(NotFoundError):
        again(loop, "9")


def test_a_version_without_a_record_is_refused(loop: Loop) -> None:
    bare = Loop(spec=loop.spec)
    bare.tracker.register("iris", "a" * 32, {}, "")
    with pytest.raises(DataError, match=r"no tag slipway\.snapshot"):
        again(bare)


_SCRIPT = """
import sys, hashlib, json, tempfile, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from fleet import iris
from slipway.adapters import skops
from slipway.adapters.onnx import OnnxModelFiles
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

frame, spec = iris.load(), iris.MODEL
matrix = frame[list(spec.feature_names)].to_numpy()
truth = frame["species"].map({name: index for index, name in enumerate(iris.SPECIES)}).to_numpy()
found = {}
for candidate in spec.candidates:
    with tempfile.TemporaryDirectory() as folder:
        model = candidate.build()
        if "n_estimators" in model.get_params():
            model.set_params(n_estimators=5)
        found[candidate.name] = OnnxModelFiles().write(spec, model.fit(matrix, truth), frame, Path(folder))["sha256"]
        skops_file = Path(folder) / "model" / "native" / "model.skops"
        found[candidate.name + ".skops"] = hashlib.sha256(skops_file.read_bytes()).hexdigest()
texts = ["let x = 1", "x = 1", "int x = 1;", "fn main() {}"] * 5
pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression())
pipeline.fit(texts, [0, 1, 2, 0] * 5)
with tempfile.TemporaryDirectory() as folder:
    skops.dump(pipeline, Path(folder))
    found["text"] = hashlib.sha256((Path(folder) / "model.skops").read_bytes()).hexdigest()
    assert (skops.load(Path(folder)).predict(texts) == pipeline.predict(texts)).all()
with tempfile.TemporaryDirectory() as folder:
    skops.dump({"names": set("abcdefgh")}, Path(folder))
    found["set"] = hashlib.sha256((Path(folder) / "model.skops").read_bytes()).hexdigest()
    assert skops.load(Path(folder)) == {"names": set("abcdefgh")}
print(json.dumps(found, sort_keys=True))
"""


@pytest.mark.services
def test_files_are_the_same_in_every_process_whatever_its_hash_seed() -> None:
    def run(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", _SCRIPT], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("1") == run("2")


@pytest.mark.services
def test_a_version_of_a_real_registry_and_lake_is_reproduced(mlflow_uri: str, tmp_path: Path) -> None:
    tracker: Any = MlflowTracker(mlflow_uri)
    spec = IRIS.model_copy(update={"name": f"iris_{os.urandom(4).hex()}"})
    loop = Loop(spec=spec, lake=ParquetLake(str(tmp_path / "lake")), tracker=tracker)
    trained = loop.train(loop.snapshot(), lock_sha256=LOCK)
    evidence = loop.gate(trained["run_id"])
    version = loop.register(trained["run_id"], evidence)
    assert version.tags["slipway.lock_sha256"] == LOCK
    assert Path(evidence["report"]).read_text().startswith("<!doctype html>")
    assert again(loop, version.version)["identical"]
