"""Bring a former version of a model back.

**When** by hand, any time, also while a rollout runs (it is aborted first). **What** the former version gets the
traffic back: at once when its slot is still warm, otherwise after it started and answered the golden rows. Leave
`version` empty for the one that was live before.

The same without Airflow: `slipway rollback MODEL [--to VERSION]` needs only Postgres and the gateway.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from dagparts import DEFAULTS, START, fleet


def build(model: str) -> None:
    @dag(
        dag_id=f"{model}_rollback",
        schedule=None,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULTS,
        doc_md=__doc__,
        tags=["slipway", model],
        params={
            "version": Param(None, type=["null", "string"], description="empty: the one that was live before"),
            "reason": Param("rolled back by hand", type="string", maxLength=500),
        },
    )
    def rollback_dag() -> None:
        @task(execution_timeout=timedelta(minutes=15))
        def roll_back(params: dict[str, Any], run_id: str | None = None) -> dict[str, Any]:
            from dagparts import final_errors
            from slipway.wiring import wiring

            with final_errors():
                return wiring().roll_back(
                    model, params["version"], actor="airflow", reason=params["reason"], run=run_id
                )

        roll_back()  # type: ignore[call-arg]

    rollback_dag()


for spec in fleet():
    build(spec.name)
