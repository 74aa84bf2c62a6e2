"""`slipway demo MODEL`: the whole loop through Airflow, then predictions through the gateway.

It only does what a user could do by hand, in the same order, and says what it waits for.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from slipway.adapters.airflow_api import AirflowApi, TaskState
from slipway.errors import StackError

if TYPE_CHECKING:
    from slipway.wiring import Wiring

__all__ = ["run_demo"]

Say = Callable[[str], None]

_TRIGGER_SECONDS = 60.0
_SAMPLE_ROWS = 100
_SAMPLE_RATE = 50.0
_ROW_CHARACTERS = 200


def run_demo(slipway: Wiring, model: str, say: Say) -> None:
    """Data, training, release and predictions for one model of a running stack.

    Raises:
        StackError: a workflow failed, or the answer does not come from the version that is live.
    """
    api, names = slipway.airflow, [f"{model}_{kind}" for kind in ("data", "train", "release")]
    slipway.spec(model)
    for name in names:
        api.wait_for_dag(name)
    data, train, release = names
    known = {name: {run["dag_run_id"] for run in api.runs(name)} for name in names}
    say(f"running {data}: snapshot and validation")
    _follow(api, data, api.trigger(data, note="slipway demo"), say)
    say(f"its data set starts {train}: candidates, gate, registration")
    states = _follow(api, train, _new_run(api, train, known[train]), say)
    if states.get("register") == "success":
        say(f"the new version starts {release}: bento, golden rows, traffic, promotion")
        approval = slipway.spec(model).rollout.approval
        if approval != "none":
            say(f"  its policy asks a person {approval.replace('_', ' ')}: `slipway approve {model}`")
        _follow(api, release, _new_run(api, release, known[release]), say)
    else:
        say("nothing new to release: the live version was trained on this very data (or the gate refused a worse one)")
    _predict(slipway, model, say)


def _new_run(api: AirflowApi, dag: str, known: set[str]) -> str:
    """The run that an asset has just started."""
    deadline = time.monotonic() + _TRIGGER_SECONDS
    while time.monotonic() < deadline:
        fresh = [str(run["dag_run_id"]) for run in api.runs(dag) if run["dag_run_id"] not in known]
        if fresh:
            return fresh[-1]
        time.sleep(0.5)
    raise StackError(f"{dag} was not started within {_TRIGGER_SECONDS:.0f} s; see `slipway logs airflow-scheduler`")


def _follow(api: AirflowApi, dag: str, run: str, say: Say) -> dict[str, str | None]:
    began = time.monotonic()

    def changed(task: TaskState) -> None:
        if task.state in ("running", "success", "failed", "skipped", "up_for_retry"):
            say(f"  {time.monotonic() - began:5.1f} s  {dag}.{task.task_id}: {task.state}")

    if api.wait(dag, run, on_change=changed) != "success":
        raise StackError(f"{dag} failed; its task logs: {api.run_url(dag, run)}")
    return {task.task_id: task.state for task in api.tasks(dag, run)}


def _predict(slipway: Wiring, model: str, say: Say) -> None:
    spec = slipway.spec(model)
    row: dict[str, Any] = dict(spec.golden_rows[0])
    answer = slipway.predict(model, row)
    live = next(entry for entry in slipway.models_info()["models"] if entry["model"] == model)["live_version"]
    if answer["model_version"] != live:
        raise StackError(
            f"version {answer['model_version']} answered, but {live} is live; see `slipway traffic {model}`"
        )
    say(f"POST /predict/{model} {_short(row)}")
    say(f"  → {answer['prediction']!r} by version {answer['model_version']} in slot {answer['slot']}")
    sample = slipway.simulate(model, rows=_SAMPLE_ROWS, rate=_SAMPLE_RATE)
    if sample.failed:
        raise StackError(f"{sample.failed} of {sample.rows} predictions failed: {sample.as_dict()['statuses']}")
    say(f"  {sample.answered} more at {_SAMPLE_RATE:.0f} a second, p50 {sample.percentile_ms(0.5):.1f} ms, none failed")


def _short(row: dict[str, Any]) -> str:
    """The row on one line; long texts are cut."""
    text = json.dumps(row)
    return text if len(text) <= _ROW_CHARACTERS else f"{text[:_ROW_CHARACTERS]}…"
