"""Builds the adapters from the settings and binds them to the jobs: the one face for DAGs, keeper, API and commands.

Everything is built when it is first used, so that a rollback needs neither MLflow nor Airflow and a command that only
reads the ledger opens nothing but Postgres. Results are plain JSON-able values; they travel through Airflow's XCom.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from slipway import __version__
from slipway.errors import DataError, GatewayError, NotFoundError, RolloutError, StackError
from slipway.settings import Settings, load_settings
from slipway.spec import ModelSpec, load_fleet, load_model

if TYPE_CHECKING:
    from slipway.adapters.airflow_api import AirflowApi
    from slipway.adapters.lake import ParquetLake
    from slipway.adapters.log_accounts import LogAccounts
    from slipway.adapters.log_folders import LogFolders
    from slipway.adapters.mlflow import MlflowTracker
    from slipway.adapters.postgres import Database
    from slipway.adapters.postgres_ledger import PostgresDecisionLog
    from slipway.adapters.postgres_releases import PostgresReleaseStore
    from slipway.adapters.spool import Spool
    from slipway.adapters.tally import Tallies
    from slipway.core.fleet import ModelStatus
    from slipway.core.rollout import Rollout
    from slipway.jobs.parts import AnswerLog, Parts
    from slipway.jobs.release import Progress
    from slipway.jobs.releases import Releases
    from slipway.jobs.simulate import Simulation
    from slipway.ports import Packager, SlotRuntime

__all__ = ["Wiring", "wiring"]

log = logging.getLogger("slipway")
Say = Callable[[str], None]
_LOG_WAIT_SECONDS = 10.0


class Wiring:
    """Slipway as built from one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._fleet: tuple[Any, dict[str, ModelSpec]] = ((), {})

    # --- adapters, each built on first use ----------------------------------------------------------------

    @property
    def fleet(self) -> dict[str, ModelSpec]:
        """Every model's spec, read again when a fleet file was added, removed or changed: servers live for weeks."""
        stamp = tuple((path.name, path.stat().st_mtime_ns) for path in sorted(self.settings.fleet_dir.glob("*.py")))
        if stamp != self._fleet[0]:
            self._fleet = (stamp, load_fleet(self.settings.fleet_dir))
        return self._fleet[1]

    def spec(self, model: str) -> ModelSpec:
        """The spec of one model; a broken fleet file of another model does not matter here."""
        return load_model(self.settings.fleet_dir, model)

    @cached_property
    def database(self) -> Database:
        from slipway.adapters.postgres import Database

        return Database(self.settings.database_uri())

    @cached_property
    def lake(self) -> ParquetLake:
        from slipway.adapters.lake import ParquetLake

        def kinds(model: str) -> dict[str, str]:
            return {feature.name: feature.kind for feature in self.spec(model).features}

        return ParquetLake(self.settings.lake, kinds)

    @cached_property
    def spool(self) -> Spool:
        from slipway.adapters.spool import Spool

        return Spool(self.settings.spool_dir)

    @cached_property
    def tallies(self) -> Tallies:
        from slipway.adapters.tally import Tallies

        return Tallies(self.settings.spool_dir)

    @cached_property
    def log_accounts(self) -> LogAccounts:
        from slipway.adapters.log_accounts import LogAccounts

        return LogAccounts(self.settings.lake)

    @cached_property
    def log_folders(self) -> LogFolders:
        from slipway.adapters.log_folders import LogFolders

        return LogFolders(self.settings.lake)

    @cached_property
    def mlflow(self) -> MlflowTracker:
        from slipway.adapters.mlflow import MlflowTracker

        return MlflowTracker(self.settings.mlflow_uri)

    @cached_property
    def decision_log(self) -> PostgresDecisionLog:
        from slipway.adapters.postgres_ledger import PostgresDecisionLog

        return PostgresDecisionLog(self.database)

    @cached_property
    def store(self) -> PostgresReleaseStore:
        from slipway.adapters.postgres_releases import PostgresReleaseStore

        return PostgresReleaseStore(self.database, slot_port_base=self.settings.slot_port_base)

    @cached_property
    def packager(self) -> Packager:
        from slipway.adapters.bentoml import BentoPackager

        bentos = self.settings.project_dir / "bentos"
        return BentoPackager(self.mlflow, self.mlflow, self.settings.serving_python, bentos, self.settings.bentoml_home)

    @cached_property
    def airflow(self) -> AirflowApi:
        from slipway.adapters.airflow_api import AirflowApi

        return AirflowApi(self.settings.airflow_uri, "admin", self.settings.secret("airflow_admin_password"))

    @cached_property
    def releases(self) -> Releases:
        from slipway.adapters.envoy import EnvoyGateway
        from slipway.adapters.postgres_ledger import PostgresLedger
        from slipway.adapters.slot_probe import HttpSlotProbe, SystemClock
        from slipway.jobs.parts import Parts
        from slipway.jobs.releases import Releases

        settings = self.settings
        parts: Parts = Parts(
            store=self.store,
            ledger=PostgresLedger(self.database),
            runtime=self._runtime(),
            gateway=EnvoyGateway(settings.xds_dir, settings.envoy_admin_uri, host=settings.host),
            packages=self.packager,
            probe=HttpSlotProbe(settings.host),
            clock=SystemClock(),
            registry=self.mlflow,
            answers=self._answers(),
        )
        return Releases(parts)

    def _answers(self) -> AnswerLog:
        from slipway.jobs.answers import LakeAnswers

        def features(model: str) -> dict[str, bool]:
            return {feature.name: feature.kind == "integer" for feature in self.spec(model).features}

        def ship() -> object:
            from slipway.jobs.ship import ship

            return ship(self.spool, self.lake)

        return LakeAnswers(self.lake, features, ship)

    def _runtime(self) -> SlotRuntime:
        from slipway.adapters.supervisor import SupervisorRuntime

        settings = self.settings
        return SupervisorRuntime(
            settings.supervisor_uri,
            settings.secret("supervisor_password"),
            slots_dir=settings.home / "supervisor" / "slots",
            log_dir=settings.log_dir,
            command=[str(settings.serving_python), "-m", "bentoml", "serve"],
            environment=self._slot_environment,
            host=settings.host,
        )

    def _slot_environment(self, model: str) -> dict[str, str]:
        settings = self.settings
        return {
            "SLIPWAY_HOME": str(settings.home),
            "BENTOML_HOME": str(settings.bentoml_home),
            "BENTOML_DO_NOT_TRACK": "True",
            "DO_NOT_TRACK": "1",
            "SLIPWAY_SPOOL_DIR": str(settings.spool_dir),
            "SLIPWAY_SPOOL_WHEN_FULL": self.spec(model).log.when_full,
            "SLIPWAY_SPOOL_MAX_BYTES": str(settings.spool_max_bytes),
            "SLIPWAY_SPOOL_SEGMENT_MAX_BYTES": str(settings.spool_segment_max_bytes),
            "SLIPWAY_SPOOL_SEGMENT_MAX_AGE_SECONDS": str(settings.spool_segment_max_age_seconds),
            "SLIPWAY_FSYNC_INTERVAL_MS": str(settings.fsync_interval_ms),
            "SLIPWAY_MAX_BODY_BYTES": str(settings.max_body_bytes),
            "SLIPWAY_MAX_BATCH_ROWS": str(settings.max_batch_rows),
            "SLIPWAY_MAX_CONCURRENCY": str(settings.max_concurrency),
            "SLIPWAY_MAX_IN_FLIGHT_BYTES": str(settings.max_in_flight_bytes),
            "SLIPWAY_MAX_QUEUE_MS": str(settings.max_queue_ms),
        }

    @cached_property
    def code_commit(self) -> str:
        """The commit of this checkout, or the hash of the library's and the fleet's files when there is none."""
        folder = self.settings.project_dir
        command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            digest = hashlib.sha256()
            for path in sorted((folder / "include").rglob("*.py")):
                digest.update(path.read_bytes())
            return f"files-{digest.hexdigest()[:40]}"

    # --- data and training --------------------------------------------------------------------------------

    def snapshot(self, model: str) -> dict[str, Any]:
        """Store the loader's rows in the lake under the hash of their content."""
        from slipway.jobs.snapshot import snapshot

        return _facts(snapshot(self.spec(model), self.lake))

    def validate(self, model: str, sha256: str) -> dict[str, Any]:
        """Check a snapshot; raises QuarantineError when it fails."""
        from slipway.adapters.gx import GxValidator
        from slipway.jobs.snapshot import validate

        taken = self.lake.snapshot(model, sha256)
        found = validate(
            self.spec(model), taken, lake=self.lake, validator=GxValidator(), decisions=self.decision_log, now=_now()
        )
        return _facts(found)

    def train(self, model: str, sha256: str | None, reason: str) -> dict[str, Any]:
        """Fit every candidate on a snapshot, by default the newest validated one."""
        from slipway.adapters.onnx import OnnxModelFiles
        from slipway.jobs.train import train

        taken = self.lake.snapshot(model, sha256 or self._newest_snapshot(model))
        trained = train(
            self.spec(model),
            taken,
            lake=self.lake,
            tracker=self.mlflow,
            registry=self.mlflow,
            files=OnnxModelFiles(),
            decisions=self.decision_log,
            reason=reason,
            code_commit=self.code_commit,
        )
        return _facts(trained)

    def _newest_snapshot(self, model: str) -> str:
        for decision in self.decision_log.recent(model, "data", limit=1000):
            if decision.verdict == "passed" and "sha256" in decision.evidence:
                return str(decision.evidence["sha256"])
        raise NotFoundError(f"{model} has no validated snapshot; run `slipway run {model}_data`")

    def gate(self, model: str, trained: Mapping[str, Any]) -> dict[str, Any]:
        """Judge the best candidate against the champion."""
        from slipway.adapters.onnx import OnnxModelFiles
        from slipway.jobs.gate import gate

        evidence = gate(
            self.spec(model),
            trained["run_id"],
            trained["reason"],
            lake=self.lake,
            tracker=self.mlflow,
            registry=self.mlflow,
            files=OnnxModelFiles(),
            decisions=self.decision_log,
            now=_now(),
        )
        return _facts(evidence)

    def register(self, model: str, trained: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, Any]:
        """Make the candidate a version with the alias `challenger`."""
        from slipway.jobs.gate import register

        spec = self.spec(model)
        return _facts(register(spec, trained["run_id"], evidence, tracker=self.mlflow, registry=self.mlflow))

    # --- releases -----------------------------------------------------------------------------------------

    def package(self, model: str, version: str | None) -> dict[str, Any]:
        """Build the bento of a version, by default the challenger."""
        from slipway.jobs.package import package

        self.spec(model)
        built = package(model, version, packager=self.packager, registry=self.mlflow)
        return {"model": model, "version": built.version, "bento_tag": built.bento_tag, "digest": built.digest}

    def roll_out(
        self,
        model: str,
        version: str,
        *,
        actor: str,
        reason: str,
        run: str | None = None,
        say: Say | None = None,
        until_asked: bool = False,
        rollout_id: str | None = None,
    ) -> dict[str, Any]:
        """Drive a rollout of a packaged version to its end, or with `until_asked` to where a person has to approve.

        With `rollout_id` it is this very rollout; whatever became of it meanwhile is the outcome.

        Raises:
            RolloutError: it ended without the version live; the message names the failed check.
        """
        from slipway.jobs.package import package
        from slipway.jobs.release import awaits_approval

        if rollout_id is not None:
            rollout = self.releases.parts.store.rollout(rollout_id)
        else:
            built = package(model, version, packager=self.packager, registry=self.mlflow)
            policy = self.spec(model).rollout
            rollout = self.releases.begin(built, policy, actor=actor, reason=reason, dag_run=run)
        report = _Reporter(say or log.info)
        for progress in self.releases.drive(rollout):
            report(progress)
            rollout = progress.rollout
            if until_asked and awaits_approval(rollout):
                return self._asked(rollout)
        if rollout.phase != "live":
            raise RolloutError(f"{model} version {version} is {rollout.phase}: {rollout.failure or 'no reason kept'}")
        return {"model": model, "version": version, "slot": rollout.slot, "rollout": rollout.id, "asked": False}

    @staticmethod
    def _asked(rollout: Rollout) -> dict[str, Any]:
        """What a person has to know to approve."""
        checks = [f"* {check.name}: **{check.verdict}** - {check.reason}" for check in rollout.checks]
        if rollout.replay is not None:
            report = rollout.replay.evidence.get("report", "no report")
            checks.append(f"* replay: **{rollout.replay.verdict}** - {rollout.replay.reason} ({report})")
        return {
            "model": rollout.model,
            "version": rollout.version,
            "rollout": rollout.id,
            "asked": True,
            "phase": str(rollout.phase),
            "previous_version": rollout.previous_version,
            "checks": "\n".join(checks) or "* nothing was checked yet",
        }

    def answer_approval(self, model: str, rollout_id: str, approved: bool, *, actor: str, reason: str) -> None:
        """Pass a person's answer on, unless the rollout has ended or was answered elsewhere."""
        from slipway.jobs.release import awaits_approval

        rollout = self.releases.parts.store.rollout(rollout_id)
        if not awaits_approval(rollout):
            log.info("the rollout of %s version %s waits for no answer: %s", model, rollout.version, rollout.phase)
        elif approved:
            self.approve(model, actor=actor, reason=reason)
        else:
            self.reject(model, actor=actor, reason=reason)

    def approve(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Agree to what the running rollout waits for."""
        return _rollout_facts(self.releases.approve(model, actor=actor, reason=reason))

    def reject(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Refuse what the running rollout waits for, and give all traffic back."""
        return _rollout_facts(self.releases.reject(model, actor=actor, reason=reason))

    def roll_back(
        self, model: str, version: str | None, *, actor: str, reason: str, run: str | None = None
    ) -> dict[str, Any]:
        """Bring a former version back, by default the one that was live before."""
        done = self.releases.rollback(model, version, actor=actor, reason=reason, dag_run=run)
        return _facts(done)

    def abort(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        """End the running rollout and give all traffic back."""
        return _rollout_facts(self.releases.abort(model, actor=actor, reason=reason))

    def promote(self, model: str, *, actor: str, reason: str) -> dict[str, Any]:
        """Make the running rollout's version live without waiting for its bake."""
        return _rollout_facts(self.releases.promote(model, actor=actor, reason=reason))

    def set_split(self, model: str, weights: Mapping[str, int], *, actor: str, reason: str) -> dict[str, Any]:
        """Set a lasting split between champion and challenger."""
        self.spec(model)
        by_slot = self.releases.set_split(model, weights, actor=actor, reason=reason)
        return {"model": model, "weights": dict(weights), "slots": by_slot}

    # --- drift and retraining -----------------------------------------------------------------------------

    def has_champion(self, model: str) -> bool:
        """Whether a version of the model was ever released."""
        return self.mlflow.by_alias(self.spec(model).name, "champion") is not None

    def watch(self, model: str, start: str | None, end: str | None) -> dict[str, Any]:
        """Judge a window of logged predictions, by default the policy's hours until now."""
        from slipway.adapters.evidently import EvidentlyReporter
        from slipway.adapters.gx import GxValidator
        from slipway.adapters.onnx import OnnxModelFiles
        from slipway.jobs.watch import watch

        spec, now = self.spec(model), _now()
        until = _time(end) if end else now
        since = _time(start) if start else until - timedelta(hours=spec.drift.window_hours)
        report = watch(
            spec,
            since,
            until,
            lake=self.lake,
            tracker=self.mlflow,
            registry=self.mlflow,
            files=OnnxModelFiles(),
            validator=GxValidator(),
            reporter=EvidentlyReporter(),
            decisions=self.decision_log,
            now=now,
            answered_rows=self._answered_rows(spec.name, since, until),
        )
        return _facts(report)

    def _answered_rows(self, model: str, since: datetime, until: datetime) -> int | None:
        """How many rows the bentos say they answered in a window, once what they answered then is in the lake."""
        from slipway.jobs.reconcile_log import answered_rows, cover
        from slipway.jobs.ship import ship

        deadline = time.monotonic() + self.settings.spool_segment_max_age_seconds + _LOG_WAIT_SECONDS
        while (waiting := self.spool.waiting_since(model)) and waiting < until and time.monotonic() < deadline:
            ship(self.spool, self.lake)  # the keeper does so as well; one of the two finds nothing to do
            time.sleep(self.settings.keeper_interval_seconds)
        hours = cover(
            model,
            since,
            until,
            tallies=self.tallies,
            accounts=self.log_accounts,
            lake=self.lake,
            waiting_since=self.spool.waiting_since(model),
            waiting_rows=lambda: self.spool.pending_rows().get(model, 0),
        )
        return answered_rows(hours, self.lake.count_predictions(model, since, until))

    def decide_retrain(self, model: str, report: Mapping[str, Any]) -> dict[str, Any]:
        """Whether the watched window warrants a retrain."""
        from slipway.jobs.retrain import decide

        return _facts(decide(self.spec(model), report, decisions=self.decision_log, now=_now()))

    def assemble(self, model: str, decision: Mapping[str, Any]) -> dict[str, Any]:
        """The training set of a retrain: the reference and the validated, labelled, logged rows."""
        from slipway.adapters.gx import GxValidator
        from slipway.jobs.retrain import assemble

        taken = assemble(
            self.spec(model),
            decision,
            lake=self.lake,
            registry=self.mlflow,
            validator=GxValidator(),
            decisions=self.decision_log,
            now=_now(),
        )
        return _facts(taken)

    # --- the prediction log -------------------------------------------------------------------------------

    def collect_counts(self) -> int:
        """Bring the accounts of ended bento processes into the lake."""
        from slipway.jobs.reconcile_log import collect

        return collect(self.tallies, self.log_accounts)

    def reconcile_log(self, days: int = 3) -> list[dict[str, Any]]:
        """Compare requests answered with rows logged, for every model and the hours of the last `days` dates."""
        from slipway.jobs.reconcile_log import reconcile

        self.collect_counts()
        now = _now()
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
        return [_facts(one) for one in found]

    def compact_log(self) -> dict[str, Any]:
        """Make few files of the many that shipping wrote."""
        from slipway.jobs.tidy import tidy

        # A lake on a local disk has a lock of its own; for any other, Postgres keeps two runs apart.
        with self.database.lock("log_compaction"):
            return _facts(tidy(self.log_folders, now=_now, sleep=time.sleep))

    def housekeep(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Clear away what nothing reaches any more, or only list it; see `jobs.housekeep`."""
        from slipway.adapters.mlflow_shelf import MlflowShelf
        from slipway.adapters.shelves import BentoStore, LakeStore, SlotLogs
        from slipway.jobs.housekeep import housekeep
        from slipway.jobs.shelves import Shelves

        settings = self.settings
        shelves = Shelves(
            bentos=BentoStore(settings.bentoml_home),
            runs=MlflowShelf(self.mlflow, settings.mlflow_uri, settings.database_uri("mlflow")),
            lake=LakeStore(settings.lake),
            logs=SlotLogs(settings.log_dir),
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
        return {**_facts(done), "bytes": done.bytes}

    def clean_airflow(self) -> dict[str, Any]:
        """Clear away Airflow's own rows and logs of runs that are older than what housekeeping keeps."""
        from slipway.stack import airflow
        from slipway.stack.programs import base_environment

        before = _now() - timedelta(days=self.settings.tidy_keep_days)
        airflow.clean(self.settings, base_environment(self.settings), before)
        return {"before": before.isoformat(), "log_folders": airflow.clear_logs(self.settings, before)}

    def log_status(self) -> list[dict[str, Any]]:
        """What is in the log of every model and what is on its way there."""
        from slipway.jobs.log_status import log_status

        models = sorted({*self.fleet, *self.spool.models()})
        parts: dict[str, Any] = {"spool": self.spool, "tallies": self.tallies, "accounts": self.log_accounts}
        return [
            _facts(log_status(model, lake=self.lake, folders=self.log_folders, now=_now(), **parts)) for model in models
        ]

    # --- what is ------------------------------------------------------------------------------------------

    def models_info(self) -> dict[str, Any]:
        """Every model of the fleet with its live version, slots, weights and rollout."""
        known = {status.model: status for status in self.releases.status()}
        models = []
        for name, spec in self.fleet.items():
            status = known.get(name)
            models.append(
                {
                    "model": name,
                    "task": spec.task,
                    "description": spec.description,
                    "live_version": status.live_version if status else None,
                    "live_slot": status.live_slot if status else None,
                    "slots": _slots_facts(status) if status else {},
                    "rollout": _rollout_facts(status.rollout) if status and status.rollout else None,
                }
            )
        return {"models": models}

    def traffic_config(self) -> dict[str, Any]:
        """The traffic split of every model, by side and by slot."""
        models = {}
        for status in self.releases.status():
            champion = status.weights.get(status.live_slot, 0) if status.live_slot else 0
            challenger = sum(status.weights.values()) - champion
            models[status.model] = {
                "weights": {"champion": champion, "challenger": challenger},
                "slots": dict(status.weights),
                "applied": None if status.applied_weights is None else dict(status.applied_weights),
            }
        return {"models": models}

    def traffic(self, model: str) -> dict[str, Any]:
        """One model's traffic and its running rollout."""
        info = next(entry for entry in self.models_info()["models"] if entry["model"] == self.spec(model).name)
        sides = {role: _plain(side) for role, side in self.releases.sides(model).items()}
        # Not in `models_info`, which anybody may read: their evidence names places of this machine.
        running = self.releases.parts.store.active(model)
        if info["rollout"] and running:
            checks = [check.as_dict() for check in running.checks]
            info = {**info, "rollout": {**info["rollout"], "checks": checks, "replay": running.evidence.get("replay")}}
        return {**info, "split": self.traffic_config()["models"].get(model), "sides": sides}

    def ledger(self, model: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest ledger rows first."""
        return [_facts(entry) for entry in self.releases.history(model, limit)]

    def served_at(self, model: str, at: str) -> dict[str, Any]:
        """What served a model at a time; see `jobs.provenance`."""
        from slipway.jobs.provenance import served_at

        return _facts(served_at(self.releases.parts.ledger, model, _time(at)))

    def behind_request(self, request_id: str) -> dict[str, Any]:
        """What stands behind an answered request; see `jobs.provenance`."""
        from slipway.adapters.log_search import LogSearch
        from slipway.jobs.provenance import behind_request

        search = LogSearch(self.settings.lake, self.spool)
        return _facts(behind_request(request_id, search, self.releases.parts.ledger, self.store))

    def decisions(self, model: str | None, limit: int) -> list[dict[str, Any]]:
        """Gate, drift, retrain and data decisions, the newest first."""
        models = [model] if model else list(self.fleet)
        found = [decision for name in models for decision in self.decision_log.recent(name, limit=limit)]
        newest = sorted(found, key=lambda decision: decision.at, reverse=True)[:limit]
        return [_facts(decision) for decision in newest]

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document of the gateway."""
        from slipway.core.openapi import document

        return document(self.fleet.values(), self.settings.max_batch_rows, __version__)

    # --- doing --------------------------------------------------------------------------------------------

    def start_training(self, model: str, reason: str, dataset: str | None, *, actor: str) -> dict[str, Any]:
        """Start the training DAG; the run's id and URL."""
        dag = f"{self.spec(model).name}_train"
        conf = {"reason": reason, "dataset": dataset}
        run = self.airflow.trigger(dag, conf, note=f"asked for by {actor}")
        return {"model": model, "dag_id": dag, "run_id": run, "url": self.airflow.run_url(dag, run)}

    def run_dag(self, dag: str, conf: Mapping[str, Any], *, wait: bool, say: Say) -> str:
        """Start a DAG run and, with `wait`, follow it to its end.

        Raises:
            StackError: the run failed.
        """
        run = self.airflow.trigger(dag, conf)
        say(f"{dag}: {self.airflow.run_url(dag, run)}")
        if not wait:
            return run
        began = time.monotonic()
        state = self.airflow.wait(
            dag,
            run,
            timeout_seconds=6 * 3600,
            on_change=lambda task: say(f"  {time.monotonic() - began:5.1f} s  {task.task_id}: {task.state or 'none'}"),
        )
        if state != "success":
            raise StackError(f"{dag} {state}; its task logs: {self.airflow.run_url(dag, run)}")
        return run

    def predict(self, model: str, body: str | Mapping[str, Any]) -> dict[str, Any]:
        """One prediction request through the gateway.

        Raises:
            DataError: the gateway refused the input.
            GatewayError: it does not answer, or not with a prediction.
        """
        import httpx

        content = body if isinstance(body, str) else json.dumps(body)
        headers = {"content-type": "application/json"}
        uri = f"{self.settings.gateway_uri}/predict/{model}"
        try:
            answer = httpx.post(uri, content=content, headers=headers, timeout=30, trust_env=False)
        except httpx.TransportError as error:
            raise GatewayError(f"no gateway answers at {self.settings.gateway_uri}; see `slipway status`") from error
        if answer.status_code != 200:
            kind = DataError if answer.status_code in (400, 404, 413, 415, 422) else GatewayError
            raise kind(f"the gateway answered {answer.status_code}: {_detail(answer.text)}")
        return dict(answer.json())

    def simulate(
        self,
        model: str,
        *,
        rows: int,
        rate: float,
        shifts: Mapping[str, float] | None = None,
        labels: bool = False,
        seed: int | None = None,
        progress: Callable[[Simulation], None] | None = None,
    ) -> Simulation:
        """Send realistic traffic; see `jobs.simulate`."""
        from slipway.jobs.simulate import simulate

        return simulate(
            self.spec(model),
            self.settings.gateway_uri,
            rows=rows,
            rate=rate,
            shifts=shifts,
            labels=labels,
            seed=seed,
            progress=progress,
        )

    def serve(self, model: str, port: int) -> None:
        """Serve the live bento in the foreground, without the prediction log; replaces this process."""
        import os

        package = self.releases.live(self.spec(model).name)
        self.packager.verify(package)
        python = str(self.settings.serving_python)
        command = [python, "-m", "bentoml", "serve", str(package.path), "--port", str(port)]
        environment = {**os.environ, "BENTOML_HOME": str(self.settings.bentoml_home), "BENTOML_DO_NOT_TRACK": "True"}
        os.execve(python, [*command, "--host", self.settings.host], environment)  # noqa: S606


@lru_cache(maxsize=1)
def wiring() -> Wiring:
    """The wiring of this process, from its settings."""
    settings = load_settings()
    if settings.fault_hook is not None:
        from slipway.core.faults import install_file

        install_file(settings.fault_hook)
    return Wiring(settings)


class _Reporter:
    """Says where a rollout is whenever that changes."""

    def __init__(self, say: Say) -> None:
        self._say, self._last, self._began = say, "", time.monotonic()

    def __call__(self, progress: Progress) -> None:
        rollout = progress.rollout
        line = f"{rollout.phase}{f' step {rollout.step + 1}' if rollout.phase == 'shifting' else ''}"
        if progress.waiting:
            line = f"{line}: {progress.waiting}"
        if line != self._last:
            self._last = line
            self._say(f"  {time.monotonic() - self._began:5.1f} s  {rollout.model} v{rollout.version} {line}")


def _now() -> datetime:
    return datetime.now(UTC)


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(f"{text!r} is no ISO 8601 time; write it like 2026-11-20T10:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _detail(text: str) -> str:
    try:
        return str(json.loads(text)["detail"])
    except (ValueError, KeyError, TypeError):
        return text[:200]


def _slots_facts(status: ModelStatus) -> dict[str, Any]:
    return {
        slot.slot: {
            "version": slot.version,
            "port": slot.port,
            "weight": status.weights.get(slot.slot, 0),
            "running": status.running.get(slot.slot) is not None,
        }
        for slot in status.slots
    }


def _rollout_facts(rollout: Any) -> dict[str, Any]:
    return {
        "id": rollout.id,
        "kind": rollout.kind,
        "version": rollout.version,
        "phase": str(rollout.phase),
        "step": rollout.step,
        "slot": rollout.slot,
        "from_version": rollout.previous_version,
        "actor": rollout.actor,
        "reason": rollout.reason,
        "failure": rollout.failure,
        "awaits_approval": rollout.asked and not rollout.approved and not rollout.ended,
        "started_at": rollout.started_at.isoformat(),
    }


def _facts(record: Any) -> dict[str, Any]:
    plain = _plain(record)
    if not isinstance(plain, dict):
        raise TypeError(f"{type(record).__name__} has no fields")
    return plain


def _plain(value: Any) -> Any:
    """JSON-able: records become objects, times ISO 8601."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return str(value)
