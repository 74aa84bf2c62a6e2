"""Take a snapshot of a model's data, validate it, and announce it.

**When** on the model's `data_cron`, or by hand. **What** `snapshot` stores the loader's rows in the lake under the
SHA-256 of their content; `validate` runs the Great Expectations suite that the model's spec implies and announces the
data set as an asset, which starts `{model}_train`.

**If `validate` is red** the snapshot is quarantined: nothing is trained on it. The task's log names the failed
expectations and the report. Correct the source and run the DAG again; the same rows give the same snapshot.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Metadata, dag, task

from dagparts import DEFAULTS, START, dataset_asset, fleet


def build(model: str, cron: str | None) -> None:
    dataset = dataset_asset(model)

    @dag(
        dag_id=f"{model}_data",
        schedule=cron,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULTS,
        doc_md=__doc__,
        tags=["slipway", model],
    )
    def data() -> None:
        @task(execution_timeout=timedelta(minutes=30))
        def snapshot() -> dict[str, Any]:
            from slipway.wiring import wiring

            return wiring().snapshot(model)

        @task(outlets=[dataset], execution_timeout=timedelta(minutes=30))
        def validate(taken: dict[str, Any]) -> Any:
            from dagparts import final_errors
            from slipway.wiring import wiring

            with final_errors():
                verdict = wiring().validate(model, taken["sha256"])
            yield Metadata(dataset, extra={"sha256": taken["sha256"], "rows": taken["rows"]})
            return verdict

        validate(snapshot())

    data()


for spec in fleet():
    build(spec.name, spec.data_cron)
