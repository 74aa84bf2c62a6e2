"""Turn a registered version into a bento and swap it in, blue-green, behind the gateway.

**When** `{model}_train` announces a challenger, or by hand with a `version`. **What** `package` builds the bento;
`roll_out` starts it in the idle slot, has it answer the golden rows, moves the traffic by the policy's steps, watches,
and promotes it (alias `champion`, one row in the ledger). The former version stays warm for an instant rollback.

**Safe to kill and to clear at any point:** the rollout's phase lives in Postgres and each step is idempotent. If this
DAG stays silent, the keeper drives the rollout to its end. `slipway abort {model}` stops one, `slipway traffic {model}`
shows it. **If `roll_out` is red** the new version was rolled back; the log names the check that failed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from dagparts import DEFAULTS, START, fleet, version_asset


def build(model: str) -> None:
    @dag(
        dag_id=f"{model}_release",
        schedule=[version_asset(model)],
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULTS,
        doc_md=__doc__,
        tags=["slipway", model],
        params={
            "version": Param(None, type=["null", "string"], description="MLflow version; empty: the challenger"),
            "reason": Param("release", type="string", maxLength=500),
        },
    )
    def release_dag() -> None:
        @task(execution_timeout=timedelta(minutes=30))
        def package(params: dict[str, Any], triggering_asset_events: Any = None) -> dict[str, Any]:
            from dagparts import announced, final_errors
            from slipway.wiring import wiring

            with final_errors():
                return wiring().package(model, params["version"] or announced(triggering_asset_events, "version"))

        # Must be directly downstream of `package`: a slot only ever runs what was built and verified.
        @task(execution_timeout=timedelta(hours=12))
        def roll_out(package: dict[str, Any], params: dict[str, Any], run_id: str | None = None) -> dict[str, Any]:
            from dagparts import final_errors
            from slipway.wiring import wiring

            with final_errors():
                return wiring().roll_out(
                    model, package["version"], actor="airflow", reason=params["reason"], run=run_id
                )

        roll_out(package())  # type: ignore[call-arg]

    release_dag()


for spec in fleet():
    build(spec.name)
