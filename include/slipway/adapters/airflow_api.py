"""Airflow's REST API, as far as Slipway drives it: trigger a workflow, follow it, read its tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slipway.adapters.plain_http import httpx, plain_client
from slipway.errors import ConflictError, NotFoundError, StackError

__all__ = ["FINISHED", "AirflowApi", "TaskState"]

FINISHED = frozenset({"success", "failed"})


@dataclass(frozen=True)
class TaskState:
    """One task of a run; `map_index` is -1 unless the task is mapped."""

    task_id: str
    state: str | None
    try_number: int
    map_index: int = -1
    duration_seconds: float | None = None


class AirflowApi:
    """A client that logs in when it must and again when its token has expired.

    Args:
        base_url: Airflow's address, for example `http://127.0.0.1:8080`.
        username: a user of Airflow's login; `password` likewise.
        timeout_seconds: of one request.
    """

    def __init__(
        self, base_url: str, username: str, password: str, timeout_seconds: float = 30.0, pages_url: str | None = None
    ) -> None:
        self._base_url = base_url
        self._pages_url = (pages_url or base_url).rstrip("/")
        self._credentials = {"username": username, "password": password}
        self._client = plain_client(base_url=base_url, timeout=timeout_seconds)
        self._token: str | None = None

    def close(self) -> None:
        self._client.close()

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def trigger(
        self,
        dag_id: str,
        conf: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        note: str | None = None,
    ) -> str:
        """Starts a run of a DAG and returns its id. A run of that id that exists already is left as it is.

        Raises:
            NotFoundError: no such DAG, or its file has not been read yet.
            StackError: Airflow does not answer or refuses.
        """
        body: dict[str, Any] = {"logical_date": None, "conf": dict(conf or {})}
        if run_id is not None:
            body["dag_run_id"] = run_id
        if note is not None:
            body["note"] = note
        try:
            return str(self._call("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])
        except ConflictError:
            if run_id is None:
                raise
            return run_id

    def run_state(self, dag_id: str, run_id: str) -> str:
        """`queued`, `running`, `success` or `failed`."""
        return str(self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def runs(self, dag_id: str, limit: int = 20) -> list[dict[str, Any]]:
        """The latest runs of a DAG as Airflow describes them, newest first."""
        query = {"order_by": "-run_after", "limit": limit}
        return list(self._call("GET", f"/dags/{dag_id}/dagRuns", params=query)["dag_runs"])

    def tasks(self, dag_id: str, run_id: str) -> list[TaskState]:
        """The state of each task of a run."""
        answer = self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 200})
        return [
            TaskState(
                task_id=item["task_id"],
                state=item["state"],
                try_number=item["try_number"],
                map_index=item["map_index"],
                duration_seconds=item["duration"],
            )
            for item in answer["task_instances"]
        ]

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout_seconds: float = 900.0,
        on_change: Callable[[TaskState], None] | None = None,
        poll_seconds: float = 0.5,
    ) -> str:
        """Waits until a run has finished and returns its state.

        Args:
            on_change: told of each task whose state has changed.

        Raises:
            StackError: the run has not finished in time.
        """
        deadline = time.monotonic() + timeout_seconds
        seen: dict[tuple[str, int], str | None] = {}
        while True:
            state = self.run_state(dag_id, run_id)
            for task in self.tasks(dag_id, run_id) if on_change else ():
                key = (task.task_id, task.map_index)
                if on_change and seen.get(key) != task.state:
                    seen[key] = task.state
                    on_change(task)
            if state in FINISHED:
                return state
            if time.monotonic() > deadline:
                raise StackError(f"{dag_id} run {run_id} is still {state} after {timeout_seconds:.0f} s")
            time.sleep(poll_seconds)

    def wait_for_dag(self, dag_id: str, timeout_seconds: float = 120.0) -> None:
        """Waits until Airflow knows a DAG, as its files are read only some seconds after the start.

        Raises:
            NotFoundError: it does not know it in time; the message has the import errors, if any.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            try:
                self._call("GET", f"/dags/{dag_id}")
            except NotFoundError:
                if time.monotonic() > deadline:
                    raise NotFoundError(f"Airflow knows no DAG {dag_id}; {self._import_errors()}") from None
                time.sleep(0.5)
            else:
                return

    def unpause(self, dag_id: str) -> None:
        """Lets the scheduler run a DAG."""
        self._call("PATCH", f"/dags/{dag_id}", json={"is_paused": False})

    def answer(self, dag_id: str, run_id: str, task_id: str, option: str) -> None:
        """Choose an option of a question that a task of a run waits with.

        Raises:
            ConflictError: it was answered before.
            NotFoundError: the task has not asked yet, or is no question.
        """
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/-1/hitlDetails"
        self._call("PATCH", path, json={"chosen_options": [option], "params_input": {}})

    def import_errors(self) -> dict[str, str]:
        """The DAG files that do not import, each with the last line of its traceback."""
        found = self._call("GET", "/importErrors", params={"limit": 100})["import_errors"]
        return {item["filename"]: item["stack_trace"].strip().splitlines()[-1] for item in found}

    def run_url(self, dag_id: str, run_id: str) -> str:
        """The page of a run in Airflow's own interface."""
        return f"{self._pages_url}/dags/{dag_id}/runs/{run_id}"

    def _import_errors(self) -> str:
        errors = self.import_errors()
        text = "; ".join(f"{name}: {line}" for name, line in errors.items())
        return f"import errors: {text}" if text else "is its file in the dags folder?"

    def _login(self) -> str:
        answer = self._client.post("/auth/token", json=self._credentials)
        if answer.status_code not in (200, 201):
            raise StackError(f"Airflow refuses the login ({answer.status_code}); compare the password in .env")
        return str(answer.json()["access_token"])

    def _call(self, method: str, path: str, **options: Any) -> Any:
        try:
            for _ in range(2):
                self._token = self._token or self._login()
                headers = {"Authorization": f"Bearer {self._token}"}
                answer = self._client.request(method, f"/api/v2{path}", headers=headers, **options)
                if answer.status_code != 401:
                    break
                self._token = None
        except httpx.HTTPError as error:
            raise StackError(f"Airflow does not answer at {self._base_url}: {error}; see `slipway status`") from error
        return _content(method, path, answer)


def _content(method: str, path: str, answer: httpx.Response) -> Any:
    if answer.is_success:
        return answer.json() if answer.content else None
    try:
        detail = answer.json().get("detail")
    except ValueError:
        detail = answer.text[:200]
    message = f"Airflow: {method} {path}: {answer.status_code} {detail}"
    raise {404: NotFoundError, 409: ConflictError}.get(answer.status_code, StackError)(message)
