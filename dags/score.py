"""Score a Parquet data set with a model, whatever its size.

**When** by hand. **What** every row of `input` (a file, a folder or an fsspec URL) is predicted by the champion, or by
the `version` given, into Parquet files of the lake; the task's log says where. Rows that cannot be predicted have no
prediction and a `problem`. Columns named in `keep` are carried along.

It may be killed at any time: the next try goes on where it was, without a repeated or missing row.

The same without Airflow: `slipway score MODEL INPUT`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, task

from dagparts import DEFAULTS, START, fleet


def build(model: str) -> None:
    @dag(
        dag_id=f"{model}_score",
        schedule=None,
        start_date=START,
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULTS,
        doc_md=__doc__,
        tags=["slipway", model],
        params={
            "input": Param("", type="string", description="a Parquet file, a folder of them, or an fsspec URL"),
            "version": Param(None, type=["null", "string"], description="empty: the champion"),
            "keep": Param([], type="array", items={"type": "string"}, description="columns to carry along"),
            "probabilities": Param(False, type="boolean", description="a column for each class"),
        },
    )
    def score_dag() -> None:
        @task(execution_timeout=timedelta(hours=24))
        def score(params: dict[str, Any]) -> dict[str, Any]:
            from dagparts import final_errors
            from slipway.wiring import wiring

            with final_errors():
                return wiring().score(
                    model,
                    params["input"],
                    version=params["version"],
                    keep=params["keep"],
                    probabilities=params["probabilities"],
                )

        score()  # type: ignore[call-arg]

    score_dag()


for spec in fleet():
    build(spec.name)
