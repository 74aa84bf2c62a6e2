"""Train every candidate of a model, judge the best against the champion, register it if it passes.

**When** a validated data set is announced, or by hand or from `{model}_drift` with a `reason`. **What** `train` fits
each candidate in its own MLflow run; `gate` scores the best one and the champion on the same held-out rows;
`register` makes it a version with the alias `challenger` and announces it, which starts `{model}_release`.

**Skipped tasks are an answer, not a fault:** `train` skips when the champion was trained on this very data,
`register` skips when the gate refused the challenger. The evidence is in the log, on the MLflow run, in
`slipway ledger --decisions` and on the page "champion beside challenger", whose place the log of `gate` names.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Metadata, Param, dag, task

from dagparts import DEFAULTS, START, dataset_asset, fleet, version_asset


def build(model: str) -> None:
    challenger = version_asset(model)

    @dag(
        dag_id=f"{model}_train",
        schedule=[dataset_asset(model)],
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULTS,
        doc_md=__doc__,
        tags=["slipway", model],
        params={
            "reason": Param(
                "data",
                enum=["data", "manual", "scheduled", "drift"],
                description="why; a drift retrain must beat the champion, others must not be worse",
            ),
            "dataset": Param(None, type=["null", "string"], description="SHA-256 of a snapshot; empty: the latest one"),
        },
    )
    def train_dag() -> None:
        @task(execution_timeout=timedelta(hours=2))
        def train(params: dict[str, Any], triggering_asset_events: Any = None) -> dict[str, Any]:
            from dagparts import announced, final_errors, skip_unless
            from slipway.wiring import wiring

            sha256 = params["dataset"] or announced(triggering_asset_events, "sha256")
            with final_errors():
                trained = wiring().train(model, sha256, params["reason"])
            skip_unless(not trained.get("skipped"), trained.get("skipped", ""))
            return trained

        @task(execution_timeout=timedelta(minutes=30))
        def gate(trained: dict[str, Any]) -> dict[str, Any]:
            from dagparts import final_errors
            from slipway.wiring import wiring

            with final_errors():
                return wiring().gate(model, trained)

        @task(outlets=[challenger], execution_timeout=timedelta(minutes=10))
        def register(trained: dict[str, Any], evidence: dict[str, Any]) -> Any:
            from dagparts import final_errors, skip_unless
            from slipway.wiring import wiring

            skip_unless(evidence["verdict"] == "pass", f"the gate refused the challenger: {evidence['reasons']}")
            with final_errors():
                registered = wiring().register(model, trained, evidence)
            yield Metadata(challenger, extra={"version": registered["version"], "reason": trained["reason"]})
            return registered

        trained = train()  # type: ignore[call-arg]
        register(trained, gate(trained))

    train_dag()


for spec in fleet():
    build(spec.name)
