"""The whole loop on the real stack, in the order in which it happens. Each test builds on the one before."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pandas as pd
import pytest

from loop.conftest import Stack, wait_until
from loop.host import ProcessorTime
from loop.open_load import OpenLoad
from slipway.adapters.bentoml import digest_of
from slipway.core.rollout_record import Rollout
from slipway.core.routes import other_slot
from slipway.jobs.package import package
from slipway.spec import ChecksPolicy, RolloutPolicy, canary
from slipway.stack.processes import ancestors
from slipway.stack.supervisor import Supervisor
from slipway.wiring import Wiring

pytestmark = pytest.mark.stack

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def live_version(stack: Stack) -> str:
    return str(stack.models()["iris"]["live_version"])


def lake_column(stack: Stack, kind: str, column: str, model: str = "iris") -> list[str]:
    import duckdb

    files = stack.home / "lake" / kind / f"model={model}"
    if not any(files.rglob("*.parquet")):
        return []
    with duckdb.connect() as connection:
        # Replayed requests are in the log as shadow, under the id of the request that they repeat.
        real = "WHERE NOT shadow" if kind == "predictions" else ""
        query = f"SELECT CAST({column} AS VARCHAR) FROM read_parquet(?, union_by_name=true) {real}"
        return [str(row[0]) for row in connection.execute(query, [str(files / "**" / "*.parquet")]).fetchall()]


def wait_for_rows(stack: Stack, request_ids: set[str]) -> None:
    """Until every one of these answers is in the lake."""

    def missing() -> set[str]:
        return request_ids - set(lake_column(stack, "predictions", "request_id"))

    wait_until(lambda: not missing(), 30, "the answered rows to be in the lake")


def wait_for_labels(stack: Stack, count: int) -> None:
    wait_until(lambda: len(lake_column(stack, "labels", "request_id")) >= count, 30, f"{count} labels in the lake")


def run_drift(stack: Stack, start: datetime) -> dict[str, Any]:
    """Run iris_drift over everything answered since `start`; its decision."""
    conf = {"start": start.isoformat(), "end": datetime.now(UTC).isoformat()}
    stack.cli("run", "iris_drift", "--conf", json.dumps(conf))
    return next(row for row in stack.ledger("--decisions", "--model", "iris") if row["kind"] == "drift")


def test_before_the_first_release_the_gateway_says_so(stack: Stack) -> None:
    with stack.gateway as client:
        answer = client.post("/predict/iris", json=ROW)
        assert client.get("/health").status_code == 200
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert uuid.UUID(answer.headers["x-request-id"]).version == 7


def test_the_loop_goes_from_data_to_a_prediction(stack: Stack) -> None:
    out = stack.cli("demo", "iris").stdout
    assert live_version(stack) == "1"
    with stack.gateway as client:
        answer = client.post("/predict/iris", json=ROW)
    body = answer.json()
    assert answer.status_code == 200
    assert body["prediction"] == "setosa"
    assert body["model_version"] == "1"
    assert body["probabilities"]["setosa"] > 0.9
    assert answer.headers["x-model-version"] == "1"
    assert stack.settings().gateway_uri in out


def test_a_second_demo_finds_everything_done(stack: Stack) -> None:
    stack.cli("demo", "iris")
    assert live_version(stack) == "1"


@pytest.mark.parametrize("model", ["housing", "solar", "code_language"])
def test_every_model_of_the_fleet_goes_through_the_whole_loop(stack: Stack, model: str) -> None:
    began = datetime.now(UTC)
    out = stack.cli("demo", model).stdout
    assert "by version 1 in slot" in out, out
    wait_until(lambda: len(lake_column(stack, "predictions", "request_id", model)) >= 101, 30, "its rows in the lake")
    stack.cli("run", f"{model}_drift", "--conf", json.dumps({"start": began.isoformat()}))
    rows = stack.ledger("--decisions", "--model", model)
    assert {row["kind"] for row in rows} >= {"data", "gate", "drift"}
    assert next(row for row in rows if row["kind"] == "drift")["verdict"] in ("no_drift", "inconclusive", "drift")
    assert stack.models()[model]["live_version"] == "1"


def test_a_parquet_file_is_scored_and_a_repeat_finds_it_done(stack: Stack, tmp_path: Path) -> None:
    frame = pd.DataFrame([ROW, ROW | {"petal_width": 31.0}, ROW]).assign(id=["a", "b", "c"])
    frame.to_parquet(tmp_path / "in.parquet")
    conf = {"input": str(tmp_path / "in.parquet"), "keep": ["id"]}
    stack.cli("run", "iris_score", "--conf", json.dumps(conf))
    done = json.loads(stack.cli("score", "iris", conf["input"], "--keep", "id").stdout)
    assert (done["rows"], done["problems"], done["seconds"]) == (3, 1, 0.0)
    scored = pd.read_parquet(next(Path(done["output"]).glob("*.parquet")))
    assert scored["id"].tolist() == ["a", "b", "c"]
    assert scored["prediction"].tolist() == ["setosa", None, "setosa"]
    assert scored["problem"].tolist() == [None, "petal_width: above 30", None]


def test_a_version_is_reproduced_bit_for_bit(stack: Stack) -> None:
    assert "the same model file and the same answers" in stack.cli("reproduce", "iris", "1").stdout


def test_a_window_without_shift_leads_to_no_retrain(stack: Stack) -> None:
    began = datetime.now(UTC)
    stack.cli("simulate", "iris", "--rows", "1000", "--rate", "250", "--labels", "--seed", "11")
    wait_for_labels(stack, 1000)
    decision = run_drift(stack, began)
    assert decision["verdict"] == "no_drift", decision
    assert live_version(stack) == "1"


def seconds_of_rollback(stack: Stack, load: OpenLoad, *options: str) -> float:
    """Roll back under load; another version must answer within 2 s.

    Returns:
        How long the command took, without the share that the machine's host withheld. What the stack itself takes
        from the command counts.
    """
    version = load.replies[-1].version
    began, then = time.monotonic(), ProcessorTime.now()
    stack.cli("rollback", "iris", *options)
    seconds, withheld_share = time.monotonic() - began, ProcessorTime.now().withheld_share_since(then)
    wait_until(lambda: load.replies[-1].version != version, 2, "the other version to answer")
    return seconds * (1 - withheld_share)


def test_drift_with_labels_retrains_and_releases_without_a_failed_request(stack: Stack) -> None:
    began = datetime.now(UTC)
    labelled = len(lake_column(stack, "labels", "request_id"))
    shift = ["--shift", "petal_length=+1.5", "--shift", "petal_width=+0.8"]
    with OpenLoad(stack.settings().gateway_port, "iris", ROW, rate=100) as load:
        stack.cli("simulate", "iris", "--rows", "3000", "--rate", "200", *shift, "--labels", "--seed", "12")
        wait_for_labels(stack, labelled + 3000)
        decision = run_drift(stack, began)
        assert decision["verdict"] == "drift", decision
        assert any("petal_length" in reason for reason in decision["reasons"]), decision
        wait_until(lambda: live_version(stack) == "2", 180, "version 2 to be live")
        wait_until(lambda: load.replies[-1].version == "2", 10, "version 2 to answer")
        airflow = Wiring(stack.settings()).airflow
        wait_until(
            lambda: airflow.runs("iris_release", limit=1)[0]["state"] == "success", 60, "the release's run to end"
        )

        back, forth = (), ("--to", "2")  # without an option: to the version before the newest
        rollbacks = [seconds_of_rollback(stack, load, *options) for options in (back, forth, back, forth, back)]
        back_at = len(load.replies)
        wait_until(lambda: len(load.replies) > back_at + 100, 10, "the load to go on")
    assert load.failures() == []
    assert set(load.versions()) == {"1", "2"}
    assert {reply.version for reply in load.replies[back_at:]} == {"1"}
    assert median(rollbacks) <= 2, rollbacks

    story = [(row["event"], row["version"]) for row in reversed(stack.ledger("--model", "iris"))]
    assert [version for event, version in story if event == "live"] == ["1", "2", "1", "2", "1", "2", "1"], story

    wait_for_rows(stack, load.answered_ids())
    logged = lake_column(stack, "predictions", "request_id")
    assert len(logged) == len(set(logged)), "single rows: each answer is logged once"


def test_a_bento_with_wrong_golden_rows_never_gets_a_request(stack: Stack, tmp_path: Path) -> None:
    slipway = Wiring(stack.settings())
    good = slipway.releases.live("iris")
    wrong = tmp_path / "v99"
    shutil.copytree(good.path, wrong)
    golden_file = next(wrong.rglob("golden.json"))
    golden = json.loads(golden_file.read_text())
    golden["predictions"] = ["virginica"] * len(golden["predictions"])
    golden_file.write_text(json.dumps(golden))
    identity_file = next(wrong.rglob("identity.json"))
    identity_file.write_text(json.dumps(json.loads(identity_file.read_text()) | {"version": "99"}))
    wrong_package = dataclasses.replace(good, version="99", path=wrong, bento_tag="iris:v99", digest=digest_of(wrong))
    policy = slipway.spec("iris").rollout.model_copy(update={"ready_timeout_seconds": 10.0})
    with OpenLoad(stack.settings().gateway_port, "iris", ROW, rate=50) as load:
        rollout = slipway.releases.begin(wrong_package, policy, actor="test", reason="wrong golden rows")
        for progress in slipway.releases.drive(rollout):
            rollout = progress.rollout
    assert rollout.phase == "rolled_back"
    assert "golden" in str(rollout.failure)
    assert load.failures() == []
    assert "99" not in load.versions()
    assert live_version(stack) == "1"


def task_processes(stack: Stack) -> list[int]:
    """The processes that run Airflow's tasks: children of the executor's busy workers."""
    everything = stack.processes()
    workers = {process.pid for process in everything if "LocalExecutor: " in process.command}
    return [process.pid for process in everything if process.parent in workers]


def test_a_killed_release_task_ends_with_one_consistent_version(stack: Stack) -> None:
    """The task is killed in the middle of its rollout; Airflow's retry or the keeper finishes it."""
    slipway = Wiring(stack.settings())
    slipway.airflow.trigger("iris_release", {"version": "2", "reason": "to be killed"})
    rollout = wait_until(lambda: slipway.store.active("iris"), 60, "the rollout to begin")
    killed = [os.kill(pid, signal.SIGKILL) for pid in task_processes(stack)]
    assert killed
    ended = wait_until(
        lambda: (found := slipway.store.rollout(rollout.id)).ended and found, 120, "the rollout to be finished"
    )
    assert ended.phase in ("live", "rolled_back")
    live = "2" if ended.phase == "live" else "1"
    wait_until(lambda: live_version(stack) == live, 10, f"version {live} to be live")
    with stack.gateway as client:
        assert client.post("/predict/iris", json=ROW).json()["model_version"] == live
    wait_until(lambda: slipway.mlflow.by_alias("iris", "champion").version == live, 30, "the alias to follow")
    events = [row["event"] for row in stack.ledger("--model", "iris") if row["rollout_id"] == rollout.id]
    assert events.count("live") == (1 if live == "2" else 0)
    stack.cli("rollback", "iris", "--to", "1", check=live == "2")


# Long enough to be met while it shifts.
CANARY = RolloutPolicy(
    steps=canary(10, 50, bake_seconds=15),
    bake_seconds=5,
    replay_requests=0,
    min_requests=20,
    max_error_rate=0.05,  # by default 900 answers without an error are asked for, three minutes of this load
    deadline_seconds=240,
    # Two versions beside a whole Airflow on few cores: latency is compared with room.
    checks=ChecksPolicy(latency_p50_ratio=4.0, latency_p99_ratio=8.0, latency_floor_ms=250.0, min_rows=50),
)


def begin_canary(slipway: Wiring) -> tuple[Rollout, str]:
    """Begin a release of version 2 and let a run of Airflow's drive it; the rollout and the run, while it shifts."""
    built = package("iris", "2", packager=slipway.packager, registry=slipway.mlflow)
    rollout = slipway.releases.begin(built, CANARY, actor="test", reason="a canary")
    run = slipway.airflow.trigger("iris_release", {"version": "2", "reason": "drives the canary"})
    wait_until(lambda: slipway.store.rollout(rollout.id).phase == "shifting", 120, "the canary")
    return rollout, run


def roll_back_for_good(stack: Stack, slipway: Wiring, run: str) -> None:
    """Bring version 1 back; the run, whose killed task Airflow tries again, must not release version 2 once more."""
    stack.cli("rollback", "iris", "--to", "1")
    wait_until(lambda: stack.cli("status", check=False).returncode == 0, 90, "Airflow to be back")
    wait_until(lambda: slipway.airflow.run_state("iris_release", run) == "success", 120, "the workflow to end")
    assert live_version(stack) == "1"


AIRFLOW = ("airflow-scheduler", "airflow-api-server", "airflow-dag-processor", "airflow-triggerer")


def test_airflow_killed_in_mid_canary_leaves_the_keeper_to_finish(stack: Stack) -> None:
    """Airflow drives a canary, dies and stays down; the keeper promotes within the policy's deadline."""
    slipway, supervisor = Wiring(stack.settings()), Supervisor(stack.settings())
    with OpenLoad(stack.settings().gateway_port, "iris", ROW, rate=50) as load:
        began = time.monotonic()
        rollout, run = begin_canary(slipway)
        wait_until(lambda: task_processes(stack), 30, "Airflow's task to drive it")
        try:
            killed = {process.pid for process in stack.processes() if "airflow" in process.command}
            killed |= set(task_processes(stack))
            for part in AIRFLOW:  # first, or Supervisor would start them again
                supervisor.stop(part)
            for pid in killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            assert slipway.store.rollout(rollout.id).phase == "shifting"
            left = CANARY.deadline_seconds - (time.monotonic() - began)
            ended = wait_until(
                lambda: (found := slipway.store.rollout(rollout.id)).ended and found, left, "the keeper to finish"
            )
            assert (ended.phase, ended.failure) == ("live", None)
            wait_until(lambda: load.replies[-1].version == "2", 10, "version 2 to answer")
        finally:
            for part in AIRFLOW:
                supervisor.start(part)
    assert load.failures() == []
    events = [row["event"] for row in stack.ledger("--model", "iris") if row["rollout_id"] == rollout.id]
    assert events.count("live") == 1
    roll_back_for_good(stack, slipway, run)


def test_a_killed_scheduler_leaves_no_task_behind(stack: Stack) -> None:
    """Its tasks lead groups of their own; one that went on would work beside the one that Airflow starts again."""
    slipway = Wiring(stack.settings())
    with OpenLoad(stack.settings().gateway_port, "iris", ROW, rate=50) as load:
        rollout, run = begin_canary(slipway)
        scheduler = pid_of(stack, "airflow-scheduler")
        tasks = [process for process in stack.processes() if process.pid in task_processes(stack)]
        assert tasks
        assert all(scheduler in ancestors(process.pid) for process in tasks)
        os.kill(scheduler, signal.SIGKILL)
        wait_until(lambda: not any(process.exists() for process in tasks), 10, "its tasks to be ended")
        assert slipway.store.rollout(rollout.id).phase == "shifting"
        ended = wait_until(
            lambda: (found := slipway.store.rollout(rollout.id)).ended and found, CANARY.deadline_seconds, "the end"
        )
        assert (ended.phase, ended.failure) == ("live", None)
    assert load.failures() == []
    events = [row["event"] for row in stack.ledger("--model", "iris") if row["rollout_id"] == rollout.id]
    assert events.count("live") == 1
    roll_back_for_good(stack, slipway, run)


def cold(stack: Stack, slipway: Wiring) -> None:
    """End the time for which the slot without traffic is kept warm, and wait until the keeper has stopped it."""
    traffic, now = slipway.store.traffic_of("iris"), datetime.now(UTC)
    assert traffic.live_slot is not None
    idle = other_slot(traffic.live_slot)
    slipway.store.keep_warm("iris", idle, now, now)
    part = f"slot-iris-{idle}"
    wait_until(lambda: part not in stack.cli("status", check=False).stdout, 60, f"{part} to be stopped")


def test_a_rollback_needs_neither_airflow_nor_mlflow(stack: Stack) -> None:
    slipway, supervisor = Wiring(stack.settings()), Supervisor(stack.settings())
    stopped = (*AIRFLOW, "mlflow")

    def are_stopped() -> bool:
        return {one.state for one in supervisor.states() if one.name in stopped} == {"STOPPED"}

    def brought_back(version: str, load: OpenLoad) -> None:
        stack.cli("rollback", "iris", "--to", version)
        wait_until(lambda: load.replies[-1].version == version, 20, f"version {version} to answer")

    assert live_version(stack) == "1"
    with OpenLoad(stack.settings().gateway_port, "iris", ROW, rate=50) as load:
        try:
            for part in stopped:
                supervisor.stop(part)
            # What is still stopping could not be started again below.
            wait_until(are_stopped, 90, "them to be stopped")
            brought_back("2", load)  # warm since the test before
            assert slipway.releases.status("iris")[0].alias_pending, "MLflow was told although it is stopped"
            cold(stack, slipway)
            brought_back("1", load)
        finally:
            for part in stopped:
                supervisor.start(part)
    assert load.failures() == []
    kinds = [
        row["detail"]["kind"] for row in stack.ledger("--model", "iris", "--limit", "20") if row["event"] == "live"
    ]
    assert kinds[:2] == ["rollback", "rollback"]
    wait_until(lambda: stack.cli("status", check=False).returncode == 0, 120, "Airflow and MLflow to be back")
    wait_until(lambda: slipway.mlflow.by_alias("iris", "champion").version == "1", 30, "the alias to follow")


BAD: list[tuple[str, dict[str, Any], int]] = [
    ("malformed JSON", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
    ("missing field", {"json": {k: v for k, v in ROW.items() if k != "petal_width"}}, 422),
    ("extra field", {"json": ROW | {"colour": 1}}, 422),
    ("string for number", {"json": ROW | {"petal_width": "wide"}}, 422),
    (
        "NaN",
        {"content": json.dumps(ROW | {"petal_width": float("nan")}), "headers": {"content-type": "application/json"}},
        400,
    ),
    (
        "infinity",
        {"content": json.dumps(ROW).replace("0.2", "1e999"), "headers": {"content-type": "application/json"}},
        422,
    ),
    ("out of range", {"json": ROW | {"petal_width": 31}}, 422),
    ("empty batch", {"json": {"rows": []}}, 422),
    ("10,001 rows", {"json": {"rows": [ROW] * 10_001}}, 422),
    (
        "60 MB body",
        {"content": b"[" + b"1," * 30_000_000 + b"1]", "headers": {"content-type": "application/json"}},
        413,
    ),
    ("wrong content type", {"content": b"a,b", "headers": {"content-type": "text/csv"}}, 415),
]


@pytest.mark.parametrize(("what", "request_", "status"), BAD, ids=[what for what, _, _ in BAD])
def test_bad_input_is_refused_and_logged_nowhere(
    stack: Stack, what: str, request_: dict[str, Any], status: int
) -> None:
    request_id = str(uuid.uuid4())
    headers = request_.get("headers", {}) | {"x-request-id": request_id}
    with stack.gateway as client:
        answer = client.post("/predict/iris", **(request_ | {"headers": headers}))
        after = client.post("/predict/iris", json=ROW)
    allowed = {status, 422} if what == "NaN" else {status}
    assert answer.status_code in allowed, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"] == request_id
    assert answer.json()["status"] == answer.status_code
    assert str(stack.home) not in answer.text
    assert "Traceback" not in answer.text
    assert after.status_code == 200
    wait_for_rows(stack, {after.headers["x-request-id"]})
    assert request_id not in lake_column(stack, "predictions", "request_id")


def test_an_unknown_model_is_a_404(stack: Stack) -> None:
    with stack.gateway as client:
        answer = client.post("/predict/rose", json=ROW)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_control_routes_need_the_key(stack: Stack) -> None:
    with stack.gateway as client:
        split = {"weights": {"champion": 100}}
        assert client.put("/config/iris", json=split).status_code == 401
        assert client.put("/config/iris", json=split, headers={"x-api-key": "wrong"}).status_code == 403
        assert client.post("/retrain/iris").status_code == 401
        assert client.get("/docs").status_code == 200
        assert "/predict/iris" in client.get("/openapi.json").json()["paths"]


def test_the_bentos_metrics_carry_model_version_and_slot(stack: Stack) -> None:
    with stack.gateway as client:
        text = client.get("/metrics/iris").text
    line = next(line for line in text.splitlines() if line.startswith("prediction_requests_total{"))
    assert 'model="iris"' in line
    assert 'version="1"' in line
    assert "prediction_latency_seconds_bucket" in text


def test_airflows_metrics_reach_the_bridge(stack: Stack) -> None:
    uri = f"http://127.0.0.1:{stack.settings().statsd_metrics_port}/metrics"
    wait_until(lambda: "airflow_" in httpx.get(uri).text, 30, "Airflow's metrics")
    assert "airflow_" in httpx.get(uri).text


def test_the_keeper_tells_what_is_live(stack: Stack) -> None:
    uri = f"http://127.0.0.1:{stack.settings().keeper_metrics_port}/metrics"
    text = httpx.get(uri).text
    live = stack.models()["iris"]
    assert f'model_live_version_info{{model="iris",slot="{live["live_slot"]}",version="1"}} 1.0' in text
    assert "prediction_log_pending_rows" in text
    assert "champion_age_seconds" in text


def pid_of(stack: Stack, part: str) -> int:
    line = next(row for row in stack.cli("status", part, check=False).stdout.splitlines() if row.startswith(part))
    return next((int(cell) for cell in line.split() if cell.isdigit()), 0)


def live_slot_part(stack: Stack) -> str:
    return f"slot-iris-{stack.models()['iris']['live_slot']}"


@pytest.mark.parametrize(
    ("part", "seconds"),
    [("live bento", 10), ("envoy", 10), ("keeper", 20), ("postgres", 20), ("airflow-scheduler", 60)],
)
def test_what_is_killed_returns_by_itself(stack: Stack, part: str, seconds: float) -> None:
    name = live_slot_part(stack) if part == "live bento" else part
    pid = pid_of(stack, name)
    with OpenLoad(stack.settings().gateway_port, "iris", ROW, rate=50) as load:
        wait_until(lambda: len(load.replies) > 20, 10, "the load to flow")
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid_of(stack, name) not in (0, pid), seconds, f"{part} to return")
        wait_until(lambda: stack.cli("status", name, check=False).returncode == 0, 60, f"{part} to be ready")
        at = len(load.replies)
        wait_until(lambda: len(load.replies) > at + 50, 20, "the load to go on")
    assert {reply.status for reply in load.replies[at:]} == {200}
    recovered = max((reply.done for reply in load.failures()), default=killed)
    assert recovered - killed <= 10
    if part not in ("live bento", "envoy"):
        assert load.failures() == []
    wait_for_rows(stack, load.answered_ids())


def test_the_ledger_says_what_stands_behind_a_request(stack: Stack) -> None:
    with stack.gateway as client:
        answered = client.post("/predict/iris", json=ROW)
    request_id = answered.headers["x-request-id"]
    for _ in range(2):  # in the spool at first, in the lake later
        found = json.loads(stack.cli("ledger", "--json", "--request", request_id).stdout)
        (answer,) = found["answers"]
        assert answer["version"] == answered.json()["model_version"]
        assert answer["bento_tag"] == f"iris:v{answer['version']}"
        assert len(answer["dataset_sha256"]) == 64
        assert answer["training_run"]
        assert answer["gate"]["verdict"] == "pass"
        assert answer["rollout"]["person"]
        wait_for_rows(stack, {request_id})
    assert answer["where"] in ("lake", "spool")
    at = json.loads(stack.cli("ledger", "--json", "--model", "iris", "--at", answer["at"]).stdout)
    assert at["version"] == answer["version"]
    assert stack.cli("ledger", "--request", str(uuid.uuid4()), check=False).returncode == 1


def test_the_champion_alias_is_put_right_and_doctor_finds_one_truth(stack: Stack) -> None:
    slipway = Wiring(stack.settings())
    live = live_version(stack)
    other = next(one.version for one in slipway.mlflow.versions("iris") if one.version != live)
    slipway.mlflow.set_alias("iris", "champion", other)
    wait_until(lambda: slipway.mlflow.by_alias("iris", "champion").version == live, 30, "the alias to be put right")
    out = stack.cli("doctor", check=False).stdout
    assert "releases: gateway, slots, alias, rollouts and ledger agree" in out, out


def test_tidying_lists_first_and_never_takes_what_is_live(stack: Stack) -> None:
    planned = json.loads(stack.cli("tidy", "--dry-run", "--json").stdout)
    assert planned["problems"] == []
    assert live_version(stack) in planned["kept"]["iris"]
    done = json.loads(stack.cli("tidy", "--json").stdout)
    assert [item["name"] for item in done["items"]] == [item["name"] for item in planned["items"]]
    with stack.gateway as client:
        assert client.post("/predict/iris", json=ROW).status_code == 200


def test_down_leaves_nothing_and_up_serves_the_same_without_training(stack: Stack) -> None:
    before = stack.models()["iris"]
    runs = stack.cli("ledger", "--model", "iris").stdout
    stack.cli("down")
    assert stack.processes() == []
    stack.cli("up")
    after = stack.models()["iris"]
    with stack.gateway as client:
        answer = client.post("/predict/iris", json=ROW)
    assert answer.status_code == 200
    assert answer.json()["model_version"] == before["live_version"]
    assert {slot: facts["weight"] for slot, facts in after["slots"].items()} == {
        slot: facts["weight"] for slot, facts in before["slots"].items()
    }
    assert stack.cli("ledger", "--model", "iris").stdout == runs
