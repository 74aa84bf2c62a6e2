"""Check that every answered request is in the log, make few files of the many that shipping writes, and clear away.

**When** nightly, before the models' drift runs, or by hand. **What** `reconcile` compares the bentos' own account of
what they answered with the rows in the lake, hour by hour over the last dates, and keeps the coverage in the lake;
`compact` turns the files of each hour that is over into one and those of each date that is over into one. Readers and
the keeper go on meanwhile, and a run that is killed is finished by the next. `housekeep` removes bentos, MLflow
versions and runs, data sets, reports and logs that nothing reaches: never what is live, in a slot, in a rollout or
aliased, never the last versions that a rollback can reach (three at least), never what a recent decision refers to.
`slipway tidy --dry-run` lists what would go, and why the rest stays. `forget_runs` does the same for Airflow's own rows
and logs of runs.

**If `reconcile` is red** some hours have fewer logged rows than answered ones. They are quarantined: nothing is
trained on them. The task's log names them, with what the bentos knew to be lost. `slipway log status` shows the
present, `*.damaged` files in the spool are segments that the disk lost a part of. **If `compact` is red** the folders
that it names are read as they were. **If `housekeep` is red** what could not be looked at was left as it is.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import dag, task

from dagparts import DEFAULTS, START


@dag(
    dag_id="slipway_tidy",
    schedule="15 1 * * *",
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    doc_md=__doc__,
    tags=["slipway"],
)
def tidy() -> None:
    @task(execution_timeout=timedelta(minutes=30))
    def reconcile() -> list[dict[str, Any]]:
        from dagparts import fail_if
        from slipway.wiring import wiring

        found = wiring().reconcile_log()
        lacking = [f"{one['model']}: {', '.join(one['found'])}" for one in found if one["found"]]
        fail_if(bool(lacking), f"answered rows are missing from the log in {'; '.join(lacking)}")
        return found

    @task(execution_timeout=timedelta(hours=3))
    def compact() -> dict[str, Any]:
        from dagparts import fail_if
        from slipway.wiring import wiring

        done = wiring().compact_log()
        fail_if(bool(done["problems"]), "; ".join(done["problems"]))
        return done

    # None waits for another: each is complete in itself, and whichever is red makes the whole run red.
    @task(execution_timeout=timedelta(hours=1))
    def housekeep() -> dict[str, Any]:
        from dagparts import fail_if
        from slipway.wiring import wiring

        done = wiring().housekeep()
        fail_if(bool(done["problems"]), "; ".join(done["problems"]))
        return done

    @task(execution_timeout=timedelta(hours=1))
    def forget_runs() -> dict[str, Any]:
        from slipway.wiring import wiring

        return wiring().clean_airflow()

    reconcile()
    compact()
    housekeep()
    forget_runs()


tidy()
