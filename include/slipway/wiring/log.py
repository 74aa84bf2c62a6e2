"""The prediction log and what is kept on disk."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from slipway.wiring.adapters import Adapters
from slipway.wiring.facts import facts, now_utc

__all__ = ["LogKeeping"]


class LogKeeping(Adapters):
    """Shipping's accounts, compaction, reconciliation and housekeeping."""

    def collect_counts(self) -> int:
        """Bring the accounts of ended bento processes into the lake."""
        from slipway.jobs.reconcile_log import collect

        return collect(self.tallies, self.log_accounts)

    def reconcile_log(self, days: int = 3) -> list[dict[str, Any]]:
        """Compare requests answered with rows logged, for every model and the hours of the last `days` dates."""
        from slipway.jobs.reconcile_log import reconcile

        self.collect_counts()
        now = now_utc()
        start = (now - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
        found = [
            reconcile(
                spec,
                start,
                now.replace(minute=0, second=0, microsecond=0),
                tallies=self.tallies,
                accounts=self.log_accounts,
                lake=self.lake,
                decisions=self.decision_log,
                waiting_since=self.spool.waiting_since(spec.name),
                now=now,
            )
            for spec in self.fleet.values()
        ]
        return [facts(one) for one in found]

    def compact_log(self) -> dict[str, Any]:
        """Make few files of the many that shipping wrote."""
        from slipway.jobs.tidy import tidy

        # A lake on a local disk has a lock of its own; for any other, Postgres keeps two runs apart.
        with self.database.lock("log_compaction"):
            return facts(tidy(self.log_folders, now=now_utc, sleep=time.sleep))

    def housekeep(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Clear away what nothing reaches any more, or only list it; see `jobs.housekeep`."""
        from slipway.adapters.mlflow_shelf import MlflowShelf
        from slipway.adapters.shelves import BentoStore, DamagedSegments, LakeStore, SlotLogs
        from slipway.jobs.housekeep import housekeep
        from slipway.jobs.shelves import Shelves

        settings = self.settings
        shelves = Shelves(
            bentos=BentoStore(settings.bentoml_home),
            runs=MlflowShelf(self.mlflow, settings.mlflow_uri, settings.database_uri("mlflow")),
            lake=LakeStore(settings.lake),
            logs=SlotLogs(settings.log_dir),
            damaged=DamagedSegments(self.spool),
            decisions=self.decision_log,
        )
        done = housekeep(
            self.releases.parts,
            shelves,
            {name: spec.rollout.keep_versions for name, spec in self.fleet.items()},
            grace=timedelta(hours=settings.tidy_grace_hours),
            keep_for=timedelta(days=settings.tidy_keep_days),
            dry_run=dry_run,
        )
        return {**facts(done), "bytes": done.bytes}

    def clean_airflow(self) -> dict[str, Any]:
        """Clear away Airflow's own rows and logs of runs that are older than what housekeeping keeps."""
        from slipway.stack import airflow
        from slipway.stack.programs import base_environment

        before = now_utc() - timedelta(days=self.settings.tidy_keep_days)
        airflow.clean(self.settings, base_environment(self.settings), before)
        return {"before": before.isoformat(), "log_folders": airflow.clear_logs(self.settings, before)}

    def log_status(self) -> list[dict[str, Any]]:
        """What is in the log of every model and what is on its way there."""
        from slipway.jobs.log_status import log_status

        models = sorted({*self.fleet, *self.spool.models()})
        parts: dict[str, Any] = {"spool": self.spool, "tallies": self.tallies, "accounts": self.log_accounts}
        return [
            facts(log_status(model, lake=self.lake, folders=self.log_folders, now=now_utc(), **parts))
            for model in models
        ]
