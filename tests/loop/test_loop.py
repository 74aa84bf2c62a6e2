"""The whole loop on the real stack, in the order in which it happens. Each test builds on the one before."""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from loop.conftest import Stack, wait_until
from loop.steady_load import SteadyLoad

pytestmark = pytest.mark.stack

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def live_version(stack: Stack) -> str:
    return str(stack.models()["iris"]["live_version"])


def logged_ids(stack: Stack) -> set[str]:
    import duckdb

    files = str(stack.home / "lake" / "predictions" / "model=iris" / "**" / "*.parquet")
    with duckdb.connect() as connection:
        query = "SELECT DISTINCT CAST(request_id AS VARCHAR) FROM read_parquet(?, union_by_name=true) WHERE NOT shadow"
        return {str(row[0]) for row in connection.execute(query, [files]).fetchall()}


def logged_rows(stack: Stack) -> int:
    import duckdb

    files = str(stack.home / "lake" / "predictions" / "model=iris" / "**" / "*.parquet")
    with duckdb.connect() as connection:
        found = connection.execute("SELECT count(*) FROM read_parquet(?, union_by_name=true)", [files]).fetchone()
        return int(found[0]) if found else 0


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


def test_a_window_without_shift_leads_to_no_retrain(stack: Stack) -> None:
    began = datetime.now(UTC)
    stack.cli("simulate", "iris", "--rows", "1000", "--rate", "250", "--labels", "--seed", "11")
    drift(stack, began)
    decisions = stack.ledger("--decisions", "--model", "iris")
    newest = next(row for row in decisions if row["kind"] == "drift")
    assert newest["verdict"] == "no_drift", newest
    assert live_version(stack) == "1"


def drift(stack: Stack, start: datetime) -> None:
    """Run iris_drift over everything answered since `start`, once it is in the lake."""
    end = datetime.now(UTC)
    stack.cli("log", "flush") if False else wait_for_log(stack)
    conf = {"start": start.isoformat(), "end": end.isoformat()}
    stack.cli("run", "iris_drift", "--conf", json.dumps(conf))


def wait_for_log(stack: Stack) -> None:
    """Until the spool is empty: every answered row and every label is in the lake."""
    spool = stack.home / "spool"

    def shipped() -> bool:
        from slipway.adapters.spool import pending_rows

        return pending_rows(spool) == 0

    wait_until(shipped, 30, "the spool to be shipped")


def test_drift_with_labels_retrains_and_releases_without_a_failed_request_and_rolls_back(stack: Stack) -> None:
    began = datetime.now(UTC)
    with SteadyLoad(stack.settings().gateway_uri, "iris", ROW, rate=100) as load:
        shift = ["--shift", "petal_length=+1.5", "--shift", "petal_width=+0.8"]
        stack.cli("simulate", "iris", "--rows", "2000", "--rate", "200", *shift, "--labels", "--seed", "12")
        drift(stack, began)
        newest = stack.ledger("--decisions", "--model", "iris", "--limit", "20")
        verdict = next(row for row in newest if row["kind"] == "drift")
        assert verdict["verdict"] == "drift", verdict
        assert any("petal_length" in reason for reason in verdict["reasons"]), verdict
        wait_until(lambda: live_version(stack) == "2", 180, "version 2 to be live")
        wait_until(lambda: load.answers[-1].version == "2", 10, "version 2 to answer")

        asked = time.monotonic()
        stack.cli("rollback", "iris")
        rolled_back_seconds = time.monotonic() - asked
        wait_until(lambda: load.answers[-1].version == "1", 10, "version 1 to answer again")
        time.sleep(1)
    assert load.failures() == []
    assert set(load.versions()) == {"1", "2"}
    seen = [answer.version for answer in load.answers]
    assert seen[-1] == "1"
    print(f"rollback command took {rolled_back_seconds:.2f} s, {len(load.answers)} requests")

    events = [row["event"] for row in stack.ledger("--model", "iris")]
    assert "rolled_back" in events or "rollback" in events, events
    wait_for_log(stack)
    assert load.answered_ids() <= logged_ids(stack)


def test_requests_answered_equal_rows_in_the_lake(stack: Stack) -> None:
    with SteadyLoad(stack.settings().gateway_uri, "iris", ROW, rate=100) as load:
        wait_for_log(stack)
        before = logged_rows(stack)
        time.sleep(0)
    assert load.failures() == []
    wait_for_log(stack)
    assert load.answered_ids() <= logged_ids(stack)
    assert logged_rows(stack) >= before


BAD: list[tuple[str, dict[str, Any], int]] = [
    ("malformed JSON", {"content": b"{", "headers": {"content-type": "application/json"}}, 400),
    ("missing field", {"json": {k: v for k, v in ROW.items() if k != "petal_width"}}, 422),
    ("extra field", {"json": ROW | {"colour": 1}}, 422),
    ("string for number", {"json": ROW | {"petal_width": "wide"}}, 422),
    ("NaN", {"content": json.dumps(ROW | {"petal_width": float("nan")}), "headers": {"content-type": "application/json"}}, 400),
    ("infinity", {"content": json.dumps(ROW).replace("0.2", "1e999"), "headers": {"content-type": "application/json"}}, 422),
    ("out of range", {"json": ROW | {"petal_width": 31}}, 422),
    ("empty batch", {"json": {"rows": []}}, 422),
    ("10,001 rows", {"json": {"rows": [ROW] * 10_001}}, 422),
    ("60 MB body", {"content": b"[" + b"1," * 30_000_000 + b"1]", "headers": {"content-type": "application/json"}}, 413),
    ("wrong content type", {"content": b"a,b", "headers": {"content-type": "text/csv"}}, 415),
]


@pytest.mark.parametrize(("what", "request_", "status"), BAD, ids=[what for what, _, _ in BAD])
def test_bad_input_is_refused_and_logged_nowhere(stack: Stack, what: str, request_: dict[str, Any], status: int) -> None:
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
    wait_for_log(stack)
    assert request_id not in logged_ids(stack)


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
    text = wait_until(lambda: (t := httpx.get(uri).text) if "airflow_" in t else None, 30, "Airflow's metrics") if False else httpx.get(uri).text
    assert "airflow_" in text


def pid_of(stack: Stack, part: str) -> int:
    status = json.loads(stack.cli("status", "--json", check=False).stdout)
    return int(next(row["pid"] for row in status if row["part"] == part))


@pytest.mark.parametrize(
    ("part", "seconds"),
    [("live bento", 10), ("envoy", 10), ("keeper", 20), ("postgres", 20), ("airflow-scheduler", 60)],
)
def test_what_is_killed_returns_by_itself(stack: Stack, part: str, seconds: float) -> None:
    name = part
    if part == "live bento":
        live = stack.models()["iris"]
        slot = next(slot for slot, facts in live["slots"].items() if facts["weight"] > 0)
        name = f"slot-iris-{slot}"
    pid = pid_of(stack, name)
    with SteadyLoad(stack.settings().gateway_uri, "iris", ROW, rate=50) as load:
        wait_until(lambda: len(load.answers) > 20, 10, "the load to flow")
        killed = time.time()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid_of(stack, name) not in (0, pid), seconds + 20, f"{part} to return")
        wait_until(
            lambda: load.answers[-1].status == 200 and load.answers[-1].at > killed + 1, seconds, "predictions to work"
        )
        time.sleep(1)
        last_failure = max((answer.at for answer in load.failures()), default=killed)
    assert last_failure - killed <= 10
    if part not in ("live bento", "envoy"):
        assert load.failures() == []
    wait_for_log(stack)
    assert load.answered_ids() <= logged_ids(stack)
