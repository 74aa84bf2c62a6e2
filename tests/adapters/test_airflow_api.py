"""The client against a small server that answers as Airflow's API does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from slipway.adapters.airflow_api import AirflowApi, TaskState
from slipway.errors import ConflictError, NotFoundError, StackError

RUNS = "/api/v2/dags/iris_train/dagRuns"


class FakeAirflow(ThreadingHTTPServer):
    """Holds runs by id; a login's token is good for `calls_per_token` requests."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.logins = 0
        self.calls_per_token = 1000
        self.calls_left = 0
        self.states = ["queued", "running", "success"]
        self.runs: dict[str, Any] = {}
        self.answers: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeAirflow

    def log_message(self, *_: Any) -> None:
        return

    def _answer(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _allowed(self) -> bool:
        known = self.headers.get("authorization") == f"Bearer token-{self.server.logins}"
        if known and self.server.calls_left > 0:
            self.server.calls_left -= 1
            return True
        self._answer(401, {"detail": "Invalid JWT token"})
        return False

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/auth/token":
            if body != {"username": "admin", "password": "right"}:
                return self._answer(401, {"detail": "Invalid credentials"})
            self.server.logins += 1
            self.server.calls_left = self.server.calls_per_token
            return self._answer(201, {"access_token": f"token-{self.server.logins}"})
        if not self._allowed():
            return None
        if self.path != RUNS:
            return self._answer(404, {"detail": "Dag with dag_id: 'nope' not found"})
        run_id = body.get("dag_run_id", "manual__1")
        if run_id in self.server.runs:
            return self._answer(409, {"detail": "DAGRun already exists"})
        self.server.runs[run_id] = body
        return self._answer(200, {"dag_run_id": run_id, "state": "queued"})

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._allowed():
            return None
        if self.path != f"{RUNS}/r1/taskInstances/approve/-1/hitlDetails":
            return self._answer(404, {"detail": "not found"})
        if self.server.answers:
            return self._answer(409, {"detail": "Human-in-the-loop detail has already been updated"})
        self.server.answers.append(body)
        return self._answer(200, {})

    def do_GET(self) -> None:
        if not self._allowed():
            return None
        if self.path.startswith(f"{RUNS}/r1/taskInstances"):
            state = "success" if self.server.states == ["success"] else "running"
            task = {"task_id": "fit", "state": state, "try_number": 1, "map_index": -1, "duration": 0.5}
            return self._answer(200, {"task_instances": [task]})
        if self.path == f"{RUNS}/r1":
            states = self.server.states
            return self._answer(200, {"state": states.pop(0) if len(states) > 1 else states[0]})
        return self._answer(404, {"detail": "not found"})


@pytest.fixture
def airflow() -> Iterator[FakeAirflow]:
    with FakeAirflow() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def api(airflow: FakeAirflow) -> Iterator[AirflowApi]:
    with AirflowApi(airflow.url, "admin", "right") as client:
        yield client


def test_a_triggered_run_carries_its_conf_and_note(api: AirflowApi, airflow: FakeAirflow) -> None:
    assert api.trigger("iris_train", {"reason": "by hand"}, run_id="r1", note="why") == "r1"
    sent = {"logical_date": None, "conf": {"reason": "by hand"}, "dag_run_id": "r1", "note": "why"}
    assert airflow.runs == {"r1": sent}
    assert airflow.logins == 1


def test_triggering_the_same_run_twice_is_one_run(api: AirflowApi, airflow: FakeAirflow) -> None:
    assert api.trigger("iris_train", run_id="r1") == api.trigger("iris_train", run_id="r1") == "r1"
    assert list(airflow.runs) == ["r1"]


def test_an_expired_token_is_renewed(api: AirflowApi, airflow: FakeAirflow) -> None:
    airflow.calls_per_token = 1
    assert [api.run_state("iris_train", "r1") for _ in range(3)] == ["queued", "running", "success"]
    assert airflow.logins == 3


def test_waiting_tells_of_each_change_once(api: AirflowApi) -> None:
    seen: list[TaskState] = []
    assert api.wait("iris_train", "r1", on_change=seen.append, poll_seconds=0) == "success"
    assert [task.state for task in seen] == ["running", "success"]


def test_waiting_ends_at_its_deadline(api: AirflowApi, airflow: FakeAirflow) -> None:
    airflow.states = ["running"]
    with pytest.raises(StackError, match="still running"):
        api.wait("iris_train", "r1", timeout_seconds=0, poll_seconds=0)


def test_an_unknown_dag_is_not_found(api: AirflowApi) -> None:
    with pytest.raises(NotFoundError, match="nope"):
        api.trigger("nope")


def test_a_wrong_password_is_one_clear_error(airflow: FakeAirflow) -> None:
    with AirflowApi(airflow.url, "admin", "wrong") as client, pytest.raises(StackError, match="refuses the login"):
        client.trigger("iris_train")


def test_an_airflow_that_is_down_is_one_clear_error() -> None:
    with (
        AirflowApi("http://127.0.0.1:9", "admin", "right") as client,
        pytest.raises(StackError, match="does not answer"),
    ):
        client.run_state("iris_train", "r1")


def test_a_question_is_answered_once(api: AirflowApi, airflow: FakeAirflow) -> None:
    api.answer("iris_train", "r1", "approve", "Reject")
    assert airflow.answers == [{"chosen_options": ["Reject"], "params_input": {}}]
    with pytest.raises(ConflictError):
        api.answer("iris_train", "r1", "approve", "Approve")
    with pytest.raises(NotFoundError):
        api.answer("iris_train", "r2", "approve", "Approve")
