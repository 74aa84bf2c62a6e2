"""The DAG files: fast, thin, documented, and in the safe order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slipway.settings import PROJECT_DIR

DAGS = PROJECT_DIR / "dags"
ML = ["sklearn", "mlflow", "evidently", "great_expectations", "onnx", "onnxruntime", "skl2onnx", "pandas", "bentoml"]
PROBE = """
import json, sys, time, pathlib, importlib.util
import airflow.sdk, airflow.providers.standard.operators.trigger_dagrun
from airflow.sdk.definitions._internal.contextmanager import DagContext
before = set(sys.modules)
began = time.perf_counter()
found = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.py")):
    definition = importlib.util.spec_from_file_location(f"dagfile_{path.stem}", path)
    module = importlib.util.module_from_spec(definition)
    DagContext.current_autoregister_module_name = module.__name__
    sys.modules[module.__name__] = module
    definition.loader.exec_module(module)
for dag, _ in DagContext.autoregistered_dags:
    found[dag.dag_id] = {
        "doc": bool(dag.doc_md), "max_active_runs": dag.max_active_runs, "catchup": dag.catchup,
        "params": sorted(dag.params),
        "tasks": {t.task_id: {"down": sorted(t.downstream_task_ids), "retries": t.retries,
                              "timeout": t.execution_timeout is not None} for t in dag.tasks},
    }
seconds = time.perf_counter() - began
new = {m.split(".")[0] for m in set(sys.modules) - before}
print(json.dumps({"seconds": seconds, "new": sorted(new), "dags": found}))
"""


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    env = os.environ | {
        "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": f"{PROJECT_DIR / 'include'}{os.pathsep}{DAGS}",
    }
    run = subprocess.run([sys.executable, "-c", PROBE, str(DAGS)], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_every_model_gets_its_workflows(parsed: dict[str, Any]) -> None:
    models = {path.stem for path in (PROJECT_DIR / "include" / "fleet").glob("*.py")}
    expected = {f"{model}_{kind}" for model in models for kind in ("data", "train", "release", "drift", "rollback")}
    assert expected | {"slipway_tidy"} <= set(parsed["dags"])


def test_all_dags_import_in_two_seconds_and_without_an_ml_library(parsed: dict[str, Any]) -> None:
    assert parsed["seconds"] < 2
    assert not set(parsed["new"]) & set(ML)


def test_every_dag_explains_itself_and_runs_one_at_a_time(parsed: dict[str, Any]) -> None:
    for name, dag in parsed["dags"].items():
        assert dag["doc"], name
        assert dag["max_active_runs"] == 1, name
        assert not dag["catchup"], name


def test_every_task_is_retried_and_bounded(parsed: dict[str, Any]) -> None:
    for name, dag in parsed["dags"].items():
        for task, facts in dag["tasks"].items():
            assert facts["retries"] >= 1, f"{name}.{task}"
            assert facts["timeout"] or task == "retrain", f"{name}.{task}"


@pytest.mark.parametrize(
    ("dag", "first", "then"),
    [
        ("iris_data", "snapshot", "validate"),
        ("iris_train", "gate", "register"),
        ("iris_release", "package", "roll_out"),
        ("iris_drift", "watch", "decide"),
        ("iris_drift", "decide", "assemble"),
        ("iris_drift", "assemble", "retrain"),
    ],
)
def test_nothing_is_released_or_trained_before_it_is_judged(
    parsed: dict[str, Any], dag: str, first: str, then: str
) -> None:
    assert then in parsed["dags"][dag]["tasks"][first]["down"]


def test_dag_files_hold_no_logic_of_their_own() -> None:
    for path in DAGS.glob("*.py"):
        assert len(Path(path).read_text().splitlines()) < 120, path.name
