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


def parse(airflow_home: Path, **more: str) -> dict[str, Any]:
    env = os.environ | {
        "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": f"{PROJECT_DIR / 'include'}{os.pathsep}{DAGS}",
        **more,
    }
    run = subprocess.run([sys.executable, "-c", PROBE, str(DAGS)], env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return parse(tmp_path_factory.mktemp("airflow"))


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


def test_a_person_is_asked_where_the_policy_says_so(tmp_path: Path) -> None:
    source = (PROJECT_DIR / "include" / "fleet" / "iris.py").read_text()
    assert "RolloutPolicy(" in source
    (tmp_path / "iris.py").write_text(source.replace("RolloutPolicy(", 'RolloutPolicy(approval="before_shifting", '))
    release = parse(tmp_path / "airflow", SLIPWAY_FLEET_DIR=str(tmp_path))["dags"]["iris_release"]["tasks"]
    assert release["package"]["down"] == ["roll_out", "until_asked"]
    assert release["until_asked"]["down"] == ["approve", "roll_out"]
    assert release["approve"]["down"] == ["roll_out"]
    assert release["roll_out"]["timeout"]


def test_the_answer_of_a_person_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DAGS))
    from dagparts import answer

    class Task:
        def __init__(self, approve: object, reached: object) -> None:
            self._given = {("approve", "return_value"): approve, ("until_asked", "reached"): reached}

        def xcom_pull(self, *, task_ids: str, key: str = "return_value") -> object:
            return self._given[task_ids, key]

    reached = {"rollout": "r-1", "asked": True, "asked_at": "2026-11-21T10:00:00+00:00"}
    person = {"chosen_options": ["Approve"], "responded_by_user": {"id": "7", "name": "Ada"}}
    assert answer(Task(person, reached)) == {
        "rollout_id": "r-1",
        "asked_at": "2026-11-21T10:00:00+00:00",
        "approved": True,
        "actor": "Ada",
        "reason": "answered in Airflow",
    }
    late = answer(Task({"chosen_options": ["Reject"], "responded_by_user": None}, reached))
    assert late is not None
    assert (late["approved"], late["actor"], late["reason"]) == (False, "airflow", "nobody answered in time")
    assert answer(Task(None, {"asked": False})) is None
    assert answer(Task(person, {"rollout": "r-1", "asked": False})) is None, "of a run before it was cleared"
    assert answer(Task(None, None)) is None
