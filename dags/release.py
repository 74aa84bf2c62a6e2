"""Turn a registered version into a bento and swap it in, blue-green, behind the gateway.

**When** `{model}_train` announces a challenger, or by hand with a `version`. **What** `package` builds the bento;
`roll_out` starts it in the idle slot, has it answer the golden rows and the last logged requests, moves the traffic by
the policy's steps, watches it beside the old one, and promotes it (alias `champion`, one row in the ledger). The former
version stays warm for an instant rollback.

**With an approval** in the model's policy, `until_asked` drives the rollout to where a person has to decide, `approve`
waits for the answer under *Required Actions*, and `roll_out` carries it out. While it waits the keeper checks on: a
breach rolls the version back. `slipway approve {model}` and `slipway reject {model}` answer as well. Airflow asks once
in a run: when the rollout has another question (`on_inconclusive="ask"` asks in each undecided step), `roll_out` waits
until it is answered by these commands or in the cockpit.

**Safe to kill and to clear at any point:** the rollout's phase lives in Postgres and each step is idempotent. If this
DAG stays silent, the keeper drives the rollout to its end. `slipway abort {model}` stops one, `slipway traffic {model}`
shows it. **If `roll_out` is red** the new version was rolled back; the log names the check that failed. One run is one
release: cleared, it tells how that ended; to try the version again, trigger a new run.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from dagparts import DEFAULTS, START, approval, fleet, version_asset
from slipway.spec import ModelSpec


def build(spec: ModelSpec) -> None:
    model = spec.name

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

        # Drives to the question only, and says where to go on; the answer may take days, and no worker waits for it.
        @task.branch(execution_timeout=timedelta(hours=12))
        def until_asked(
            package: dict[str, Any], params: dict[str, Any], run_id: str | None = None, ti: Any = None
        ) -> str:
            from dagparts import final_errors
            from slipway.wiring import wiring

            with final_errors():
                reached = wiring().roll_out(
                    model, package["version"], actor="airflow", reason=params["reason"], run=run_id, until_asked=True
                )
            ti.xcom_push(key="reached", value=reached)
            return "approve" if reached["asked"] else "roll_out"

        # Must be downstream of `package`: a slot only ever runs what was built and verified.
        @task(execution_timeout=timedelta(hours=12), trigger_rule="none_failed_min_one_success")
        def roll_out(
            package: dict[str, Any], params: dict[str, Any], run_id: str | None = None, ti: Any = None
        ) -> dict[str, Any]:
            from dagparts import answer, final_errors
            from slipway.wiring import wiring

            with final_errors():
                given = answer(ti)
                if given is not None:
                    wiring().answer_approval(model, **given)
                return wiring().roll_out(
                    model,
                    package["version"],
                    actor="airflow",
                    reason=params["reason"],
                    run=run_id,
                    rollout_id=given["rollout_id"] if given else None,
                )

        packaged = package()  # type: ignore[call-arg]
        done = roll_out(packaged)  # type: ignore[call-arg]
        if spec.rollout.may_ask:
            asked = until_asked(packaged)  # type: ignore[call-arg]
            asked >> approval(model, spec.rollout.approval_timeout_seconds) >> done
            asked >> done

    release_dag()


for one in fleet():
    build(one)
