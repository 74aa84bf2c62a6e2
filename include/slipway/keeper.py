"""The keeper: ships the prediction log, keeps gateway and slots as the tables want them, exports metrics.

It holds no state of its own. Killed at any line and started again, it finds in the spool and in Postgres what is left
to do. A part that fails (Postgres restarts, the disk is full) is reported and tried again; the other goes on.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from slipway.core.rollout_record import Phase
from slipway.errors import SlipwayError
from slipway.jobs.reconcile import Finding
from slipway.spec import fleet_names
from slipway.stack.prometheus import write_targets
from slipway.wiring import Wiring, wiring

__all__ = ["Keeper", "Metrics", "main"]

log = logging.getLogger("slipway.keeper")

_METRICS_SECONDS = 2.0
_TRAFFIC_SECONDS = 10.0
_QUESTIONS_SECONDS = 2.0
_TRUTH_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 5.0


class Metrics:
    """What the keeper exports; names and labels are part of the public contract."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, ["model", *labels], registry=registry)

        self.drift = gauge("model_drift_score", "Drift of the last window: 0 none, 1 complete.")
        self.live = gauge("model_live_version_info", "1 for the version that is live.", "version", "slot")
        self.weight = gauge("model_traffic_weight", "Per cent of the traffic that a slot gets.", "slot")
        self.phase = gauge("rollout_phase", "1 for the phase that the model's latest rollout is in.", "phase")
        self.pending = gauge("prediction_log_pending_rows", "Answered rows that are not in the lake yet.")
        self.age = gauge("champion_age_seconds", "Time since the live version went live.")
        self.quality = gauge("model_quality", "The metric on the labelled rows of the last window.", "metric")
        self.retrain_blocked = gauge(
            "model_retrain_blocked", "1 while automatic retraining has stopped until a person has looked."
        )
        self.shipped = Counter(
            "prediction_log_shipped_rows", "Rows brought into the lake since this start.", ["model"], registry=registry
        )
        self.differences = Gauge(
            "keeper_differences", "Differences from the tables that could not be repaired.", ["part"], registry=registry
        )
        self.failures = Counter("keeper_failures", "Rounds that failed, by part.", ["part"], registry=registry)


class Keeper:
    """A loop for each part of the work, so that none holds another up."""

    def __init__(self, slipway: Wiring, metrics: Metrics) -> None:
        self._slipway, self._metrics = slipway, metrics
        self._stop = threading.Event()
        self._said: dict[str, str] = {}
        self._lasting: dict[str, set[str]] = {}
        self._known: frozenset[str] = frozenset()
        self._taken: set[str] = set()
        self._settled: set[str] = set()

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Work until `stop()`; then ship once more, so that a planned stop leaves nothing behind."""
        rounds: dict[str, Callable[[], None]] = {
            "log": self.ship,
            "releases": self.tend,
            "truth": self.align,
            "metrics": self.export,
            "traffic": self.sample,
            "questions": self.settle,
        }
        threads = [threading.Thread(target=self._loop, args=item, name=item[0]) for item in rounds.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _loop(self, part: str, work: Callable[[], None]) -> None:
        usual = self._slipway.settings.keeper_interval_seconds
        slow = {"metrics": _METRICS_SECONDS, "truth": max(usual, _TRUTH_SECONDS), "traffic": _TRAFFIC_SECONDS}
        slow["questions"] = _QUESTIONS_SECONDS
        interval = slow.get(part, usual)
        pause = interval
        while not self._stop.is_set():
            try:
                work()
                pause = interval
                self._recovered(part)
            except Exception as error:
                # Whatever it is, the daemon must survive it; the metric and the log tell, and an alert can fire.
                self._metrics.failures.labels(part).inc()
                self._complain(part, error)
                pause = max(interval, min(pause * 2, _LONGEST_PAUSE_SECONDS))
            self._stop.wait(pause)

    def _complain(self, part: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if self._said.get(part) != text:  # a lasting fault is one line, not one a second
            self._said[part] = text
            log.error("%s: %s", part, text, exc_info=not isinstance(error, SlipwayError))

    def _recovered(self, part: str) -> None:
        if self._said.pop(part, None):
            log.info("%s: works again", part)

    def ship(self) -> None:
        """Bring sealed segments into the lake."""
        from slipway.jobs.ship import ship

        done = ship(self._slipway.spool, self._slipway.lake)
        for model, rows in done.rows.items():
            self._metrics.shipped.labels(model).inc(rows)
        for problem in done.problems:
            log.error("log: %s", problem)
        self._slipway.collect_counts()
        pending = self._slipway.spool.pending_rows()
        for model in {*self._known, *pending}:
            self._metrics.pending.labels(model).set(pending.get(model, 0))

    def tend(self) -> None:
        """Finish abandoned rollouts; repair whatever differs from the tables."""
        releases = self._slipway.releases
        names = fleet_names(self._slipway.settings.fleet_dir)
        if names != self._known:
            releases.know(names)
            self._known = names
        taken = releases.take_over(self._slipway.settings.driver_silence_seconds, self._taken)
        self._report("releases", [*taken, *releases.reconcile(registry=False)])

    def align(self) -> None:
        """Move aliases after the live versions, and say what else differs: wrong answers on a port, gaps, silence.

        Apart from `tend`, since MLflow or a bento may hang and traffic must not wait for either.
        """
        releases = self._slipway.releases
        self._report("truth", [*releases.reconcile_registry(), *releases.survey(registry=False)])

    def _report(self, part: str, findings: Sequence[Finding]) -> None:
        """One line per difference, not one a second; one that comes back after it was gone is news again."""
        lasting = set()
        for finding in findings:
            text = f"{finding.kind} {finding.model}: {finding.detail}"
            if finding.repaired:
                log.info("%s (repaired)", text)
                continue
            lasting.add(text)
            if text not in self._lasting.get(part, ()):
                log.warning("%s (not repaired)", text)
        self._lasting[part] = lasting
        self._metrics.differences.labels(part).set(len(lasting))

    def export(self) -> None:
        """Refresh the metrics that come from the database, and the list of bentos that Prometheus scrapes."""
        now = datetime.now(UTC)
        write_targets(self._slipway.settings, self._slipway.releases.parts.runtime.list())
        for status in self._slipway.releases.status():
            model = status.model
            for slot in ("blue", "green"):
                self._metrics.weight.labels(model, slot).set(status.weights.get(slot, 0))
            self._one_of(self._metrics.live, model, (status.live_version, status.live_slot))
            phase = str(status.rollout.phase) if status.rollout else None
            for each in Phase:
                self._metrics.phase.labels(model, str(each)).set(1 if str(each) == phase else 0)
            entry = self._slipway.releases.live_at(model, now)
            if entry is not None:
                self._metrics.age.labels(model).set((now - entry.at).total_seconds())
            self._export_judgement(model)

    def sample(self) -> None:
        """Keep the gateway's counters for the cockpit's pictures of traffic and errors."""
        self._slipway.sample_traffic()

    def settle(self) -> None:
        """Answer in Airflow what was answered in the cockpit or by a command."""
        self._slipway.settle_questions(self._settled)

    def _export_judgement(self, model: str) -> None:
        newest = next(iter(self._slipway.decision_log.recent(model, "drift", limit=1)), None)
        evidence: Mapping[str, Any] = newest.evidence if newest else {}
        if isinstance(evidence.get("score"), int | float):
            self._metrics.drift.labels(model).set(evidence["score"])
        quality = evidence.get("quality") or {}
        if isinstance(quality.get("value"), int | float):
            self._metrics.quality.labels(model, str(quality.get("metric"))).set(quality["value"])
        decided = next(iter(self._slipway.decision_log.recent(model, "retrain", limit=1)), None)
        self._metrics.retrain_blocked.labels(model).set(decided is not None and decided.verdict == "alert")

    @staticmethod
    def _one_of(gauge: Gauge, model: str, labels: tuple[str | None, str | None]) -> None:
        """Only the present labels of the model stay."""
        current = (model, *(str(label) for label in labels)) if labels[0] is not None else None
        for known in [values for values in gauge._metrics if values[0] == model and values != current]:
            gauge.remove(*known)
        if current is not None:
            gauge.labels(*current).set(1)


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    slipway = wiring()
    settings = slipway.settings
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=settings.log_level,
        stream=sys.stdout,
        format="%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    server, _ = start_http_server(settings.keeper_metrics_port, settings.host, registry)
    keeper = Keeper(slipway, metrics)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: keeper.stop())
    names = ", ".join(sorted(fleet_names(settings.fleet_dir))) or "no model yet"
    log.info("keeping %s; metrics on port %d", names, settings.keeper_metrics_port)
    keeper.run()
    server.shutdown()
    log.info("stopped")
