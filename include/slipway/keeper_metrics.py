"""What the keeper exports to Prometheus, and where each number comes from.

Names and labels are a public contract: dashboards, alerts (`monitoring/prometheus/rules/`) and users rely on them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from slipway.core.rollout_record import WATCHED, Phase
from slipway.errors import SlipwayError
from slipway.jobs.reconcile_log import incomplete_hours
from slipway.jobs.release import awaits_approval
from slipway.spec import load_model

if TYPE_CHECKING:
    from slipway.core.drift import DriftVerdict
    from slipway.core.rollout_record import Rollout
    from slipway.wiring import Wiring

__all__ = ["DRIFT_VERDICTS", "Exporter", "Metrics", "longest_period_seconds"]

DRIFT_VERDICTS: tuple[DriftVerdict, ...] = ("no_drift", "drift", "inconclusive", "quarantined")
_RECENT = timedelta(days=3)
"""The nightly comparison of the log looks this far back."""


class Metrics:
    """Every metric of the keeper."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, ["model", *labels], registry=registry)

        self.drift = gauge("model_drift_score", "Drift of the last window: 0 none, 1 complete.")
        self.drift_verdict = gauge("model_drift_verdict", "1 for the verdict on the last window.", "verdict")
        self.drift_confirmed = gauge("model_drift_confirmed", "1 while drift is confirmed by several windows.")
        self.drift_age = gauge("model_drift_age_seconds", "Time since a window was last judged.")
        self.drift_period = gauge("model_drift_period_seconds", "Longest time between two planned drift runs.")
        self.quality = gauge("model_quality", "The metric on the labelled rows of the last window.", "metric")
        self.retrain_blocked = gauge(
            "model_retrain_blocked", "1 while automatic retraining has stopped until a person has looked."
        )
        self.live = gauge("model_live_version_info", "1 for the version that is live.", "version", "slot")
        self.weight = gauge("model_traffic_weight", "Per cent of the traffic that a slot gets.", "slot")
        self.age = gauge("champion_age_seconds", "Time since the live version went live.")
        self.phase = gauge("rollout_phase", "1 for the phase that the model's running rollout is in.", "phase")
        self.phase_age = gauge("rollout_phase_age_seconds", "Time in the running rollout's phase or step.")
        self.overdue = gauge(
            "rollout_overdue_seconds",
            "Time since the running rollout's deadline; 0 before it and where the policy holds.",
        )
        self.silent = gauge("rollout_silent_seconds", "Time since the running rollout was last driven.")
        self.asked = gauge("rollout_awaits_approval", "1 while the running rollout waits for a person.")
        self.pending = gauge("prediction_log_pending_rows", "Answered rows that are not in the lake yet.")
        self.oldest = gauge("prediction_log_oldest_pending_seconds", "Age of the oldest segment in the spool; 0: none.")
        self.damaged = gauge("prediction_log_damaged_segments", "Segments that the disk lost a part of.")
        self.incomplete = gauge(
            "prediction_log_incomplete_hours", "Hours of the last 3 days with fewer logged rows than answered ones."
        )
        self.shipped = Counter(
            "prediction_log_shipped_rows", "Rows brought into the lake since this start.", ["model"], registry=registry
        )
        self.spool_limit = Gauge("prediction_log_spool_limit_bytes", "What the spool may hold.", registry=registry)
        self.free = Gauge("storage_free_bytes", "Free space where a folder lies.", ["folder"], registry=registry)
        self.size = Gauge("storage_size_bytes", "Size of the disk where a folder lies.", ["folder"], registry=registry)
        self.differences = Gauge(
            "keeper_differences", "Differences from the tables that could not be repaired.", ["part"], registry=registry
        )
        self.failures = Counter("keeper_failures", "Rounds that failed, by part.", ["part"], registry=registry)

    def show_one(self, gauge: Gauge, model: str, *labels: str | None) -> None:
        """Of the model's series only the one with these labels stays, at 1; none when the first is None."""
        current = (model, *(str(label) for label in labels)) if labels[0] is not None else None
        for known in [values for values in gauge._metrics if values[0] == model and values != current]:
            gauge.remove(*known)
        if current is not None:
            gauge.labels(*current).set(1)


class Exporter:
    """Reads what the metrics tell; cheap facts in `facts`, those that need a longer look in `accounts`."""

    def __init__(self, slipway: Wiring, metrics: Metrics) -> None:
        self._slipway, self._metrics = slipway, metrics

    def facts(self, now: datetime) -> None:
        """Traffic, rollouts, judgements and the spool of every model."""
        for status in self._slipway.releases.status():
            model = status.model
            for slot in ("blue", "green"):
                self._metrics.weight.labels(model, slot).set(status.weights.get(slot, 0))
            self._metrics.show_one(self._metrics.live, model, status.live_version, status.live_slot)
            self.rollout(model, status.rollout, now)
            entry = self._slipway.releases.live_at(model, now)
            if entry is not None:
                self._metrics.age.labels(model).set((now - entry.at).total_seconds())
            self.judgement(model, status.live_version, now)
            self._spool(model, now)

    def rollout(self, model: str, running: Rollout | None, now: datetime) -> None:
        """The running rollout's phase and its clocks."""

        def seconds(since: datetime | None) -> float:
            return max(0.0, (now - since).total_seconds()) if since else 0.0

        for each in Phase:
            self._metrics.phase.labels(model, str(each)).set(running is not None and running.phase == each)
        asked = running is not None and awaits_approval(running)
        self._metrics.phase_age.labels(model).set(seconds(running.phase_since if running else None))
        self._metrics.silent.labels(model).set(seconds(running.driven_at if running else None))
        # While a person is waited for, the clock of the deadline stands still; a policy that holds has none.
        due = running.deadline if running and not asked and not _may_hold(running) else None
        self._metrics.overdue.labels(model).set(seconds(due))
        self._metrics.asked.labels(model).set(asked)

    def judgement(self, model: str, live_version: str | None, now: datetime) -> None:
        """What the newest decisions about drift and retraining said; a verdict on another version says nothing now."""
        newest = next(iter(self._slipway.decision_log.recent(model, "drift", limit=1)), None)
        evidence: Mapping[str, Any] = newest.evidence if newest else {}
        if newest is not None:
            current = evidence.get("champion") == live_version
            for verdict in DRIFT_VERDICTS:
                self._metrics.drift_verdict.labels(model, verdict).set(current and newest.verdict == verdict)
            self._metrics.drift_confirmed.labels(model).set(current and bool(evidence.get("confirmed")))
            self._metrics.drift_age.labels(model).set(max(0.0, (now - newest.at).total_seconds()))
        if isinstance(evidence.get("score"), int | float):
            self._metrics.drift.labels(model).set(evidence["score"])
        quality = evidence.get("quality") or {}
        if isinstance(quality.get("value"), int | float):
            self._metrics.quality.labels(model, str(quality.get("metric"))).set(quality["value"])
        decided = next(iter(self._slipway.decision_log.recent(model, "retrain", limit=1)), None)
        self._metrics.retrain_blocked.labels(model).set(decided is not None and decided.verdict == "alert")

    def _spool(self, model: str, now: datetime) -> None:
        since = self._slipway.spool.waiting_since(model)
        self._metrics.oldest.labels(model).set(max(0.0, (now - since).total_seconds()) if since else 0.0)
        self._metrics.damaged.labels(model).set(len(self._slipway.spool.damaged(model)))

    def accounts(self, models: Iterable[str], now: datetime) -> None:
        """Gaps of the log, the drift runs' calendar, and the disks."""
        settings = self._slipway.settings
        self._metrics.spool_limit.set(settings.spool_max_bytes)
        folders = {"home": settings.home}
        if "://" not in settings.lake:
            folders["lake"] = Path(settings.lake)
        for name, folder in folders.items():
            with contextlib.suppress(FileNotFoundError):
                found = os.statvfs(folder)
                self._metrics.free.labels(name).set(found.f_bavail * found.f_frsize)
                self._metrics.size.labels(name).set(found.f_blocks * found.f_frsize)
        for model in models:
            hours = incomplete_hours(self._slipway.decision_log, model)
            recent = sum(1 for hour in hours if now - hour < _RECENT)
            self._metrics.incomplete.labels(model).set(recent)
            with contextlib.suppress(SlipwayError):  # a fleet file that is being written; Airflow tells about it
                cron = load_model(settings.fleet_dir, model).drift_cron
                self._metrics.drift_period.labels(model).set(longest_period_seconds(cron, now))


def _may_hold(rollout: Rollout) -> bool:
    """Whether its policy lets it wait beyond the deadline; a driver that is silent shows in its own metric."""
    return rollout.policy.on_inconclusive == "hold" and rollout.phase in (Phase.REPLAYING, *WATCHED)


def longest_period_seconds(cron: str, now: datetime) -> float:
    """The longest pause between two times of a five-field cron expression, looked at over the next ten times.

    >>> longest_period_seconds("0 2 * * 1-5", datetime(2026, 11, 20))
    259200.0
    """
    from croniter import croniter

    times = croniter(cron, now)
    ahead = [float(times.get_next(float)) for _ in range(11)]
    return max(later - earlier for earlier, later in pairwise(ahead))
