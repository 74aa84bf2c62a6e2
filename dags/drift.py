"""Judge the predictions of a window against the champion's training data; retrain when that is warranted.

**When** nightly (the model's `drift_cron`), or by hand. **What** `watch` checks that the window is completely logged
and valid, compares it with the reference and writes Evidently's report to the lake; `decide` asks whether labels say
that quality suffered and whether the circuit breaker allows a retrain; `assemble` builds the training set from the
reference and the validated, labelled, logged rows; `retrain` starts `{model}_train` with the reason `drift`.

**Skipped tasks after `decide` are the normal night:** nothing drifted, or the drift does not hurt. The reasons are in
the log of `decide` and in `slipway ledger --decisions`. The verdict `alert` asks for a person: the week's retrains are
used up, or the gate refused several challengers in a row. Whoever has looked runs the DAG with `insist`: then the
labelled rows of the window are trained on all the same, unless they are quarantined.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag, task

from dagparts import DEFAULTS, START, fleet


def build(model: str, cron: str) -> None:
    @dag(
        dag_id=f"{model}_drift",
        schedule=cron,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULTS,
        doc_md=__doc__,
        tags=["slipway", model],
        params={
            "start": Param(
                None, type=["null", "string"], format="date-time", description="empty: window_hours before end"
            ),
            "end": Param(None, type=["null", "string"], format="date-time", description="empty: now"),
            "insist": Param(
                False, type="boolean", description="retrain on the window's labelled rows, whatever the policy says"
            ),
        },
    )
    def drift_dag() -> None:
        @task(execution_timeout=timedelta(hours=1))
        def watch(params: dict[str, Any], dag_run: Any = None) -> dict[str, Any]:
            from dagparts import final_errors, skip_unless
            from slipway.wiring import wiring

            skip_unless(wiring().has_champion(model), f"no version of {model} was released yet")
            # The run's own time, not the clock's: a retry judges the same window.
            end = params["end"] or dag_run.run_after.isoformat()
            with final_errors():
                return wiring().watch(model, params["start"], end)

        @task(execution_timeout=timedelta(minutes=30))
        def decide(report: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
            from dagparts import final_errors, skip_unless
            from slipway.wiring import wiring

            with final_errors():
                decision = wiring().decide_retrain(model, report, insisted=params["insist"])
            skip_unless(decision["retrain"], "; ".join(decision["reasons"]))
            return decision

        @task(execution_timeout=timedelta(hours=1))
        def assemble(decision: dict[str, Any]) -> dict[str, Any]:
            from dagparts import final_errors
            from slipway.wiring import wiring

            with final_errors():
                return wiring().assemble(model, decision)

        decision = decide(watch())  # type: ignore[call-arg]
        retrain = TriggerDagRunOperator(
            task_id="retrain",
            trigger_dag_id=f"{model}_train",
            # One training run for one drift run, also when this task is repeated.
            trigger_run_id="drift__{{ run_id }}",
            skip_when_already_exists=True,
            conf={"reason": "drift", "dataset": "{{ ti.xcom_pull(task_ids='assemble')['sha256'] }}"},
        )
        assemble(decision) >> retrain

    drift_dag()


for spec in fleet():
    build(spec.name, spec.drift_cron)
