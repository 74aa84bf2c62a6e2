"""Data, training, drift and retraining."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from slipway.errors import NotFoundError
from slipway.wiring.adapters import Adapters
from slipway.wiring.facts import facts, now_utc, parse_time

__all__ = ["Learning"]

_LOG_WAIT_SECONDS = 10.0


class Learning(Adapters):
    """From a loader's rows to a registered version, and from logged predictions back to training."""

    def snapshot(self, model: str) -> dict[str, Any]:
        """Store the loader's rows in the lake under the hash of their content."""
        from slipway.jobs.snapshot import snapshot

        return facts(snapshot(self.spec(model), self.lake))

    def validate(self, model: str, sha256: str) -> dict[str, Any]:
        """Check a snapshot; raises QuarantineError when it fails."""
        from slipway.adapters.gx import GxValidator
        from slipway.jobs.snapshot import validate

        taken = self.lake.snapshot(model, sha256)
        found = validate(
            self.spec(model), taken, lake=self.lake, validator=GxValidator(), decisions=self.decision_log, now=now_utc()
        )
        return facts(found)

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
            lock_sha256=self.lock_sha256,
        )
        return facts(trained)

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
            now=now_utc(),
        )
        return facts(evidence)

    def register(self, model: str, trained: Mapping[str, Any], evidence: Mapping[str, Any]) -> dict[str, Any]:
        """Make the candidate a version with the alias `challenger`."""
        from slipway.jobs.gate import register

        spec = self.spec(model)
        return facts(register(spec, trained["run_id"], evidence, tracker=self.mlflow, registry=self.mlflow))

    def reproduce(self, model: str, version: str) -> dict[str, Any]:
        """Train a version once more and compare; see `jobs.reproduce`."""
        from slipway.adapters.onnx import OnnxModelFiles
        from slipway.jobs.reproduce import reproduce

        outcome = reproduce(
            self.spec(model),
            version,
            lake=self.lake,
            tracker=self.mlflow,
            registry=self.mlflow,
            files=OnnxModelFiles(),
            code_commit=self.code_commit,
            lock_sha256=self.lock_sha256,
        )
        return facts(outcome)

    def has_champion(self, model: str) -> bool:
        """Whether a version of the model was ever released."""
        return self.mlflow.by_alias(self.spec(model).name, "champion") is not None

    def watch(self, model: str, start: str | None, end: str | None) -> dict[str, Any]:
        """Judge a window of logged predictions, by default the policy's hours until now."""
        from slipway.adapters.evidently import EvidentlyReporter
        from slipway.adapters.gx import GxValidator
        from slipway.adapters.onnx import OnnxModelFiles
        from slipway.jobs.watch import watch

        spec, now = self.spec(model), now_utc()
        until = parse_time(end) if end else now
        since = parse_time(start) if start else until - timedelta(hours=spec.drift.window_hours)
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
        return facts(report)

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

    def decide_retrain(self, model: str, report: Mapping[str, Any], *, insisted: bool = False) -> dict[str, Any]:
        """Whether the watched window warrants a retrain, or a person asks for one."""
        from slipway.jobs.retrain import decide

        return facts(decide(self.spec(model), report, decisions=self.decision_log, now=now_utc(), insisted=insisted))

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
            now=now_utc(),
        )
        return facts(taken)
