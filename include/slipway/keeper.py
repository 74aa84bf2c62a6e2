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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, start_http_server

from slipway.errors import SlipwayError
from slipway.jobs.reconcile import Finding
from slipway.keeper_metrics import Exporter, Metrics
from slipway.spec import fleet_names
from slipway.stack.prometheus import write_targets
from slipway.wiring import Wiring, wiring

__all__ = ["Keeper", "main"]

log = logging.getLogger("slipway.keeper")

_METRICS_SECONDS = 2.0
_TRAFFIC_SECONDS = 10.0
_QUESTIONS_SECONDS = 2.0
_TRUTH_SECONDS = 5.0
_ACCOUNTS_SECONDS = 30.0
_GATEWAY_SECONDS = 5.0
_LONGEST_PAUSE_SECONDS = 5.0


class Keeper:
    """A loop for each part of the work, so that none holds another up."""

    def __init__(self, slipway: Wiring, metrics: Metrics) -> None:
        self._slipway, self._metrics = slipway, metrics
        self._exporter = Exporter(slipway, metrics)
        self._stop = threading.Event()
        self._said: dict[str, str] = {}
        self._lasting: dict[str, set[str]] = {}
        self._known: frozenset[str] = frozenset()
        self._taken: set[str] = set()
        self._settled: set[str] = set()
        self._idle: dict[tuple[str, str], tuple[int, int]] = {}

    def stop(self) -> None:
        self._stop.set()

    def run(self) -> None:
        """Work until `stop()`; then ship once more, so that a planned stop leaves nothing behind."""
        rounds: dict[str, Callable[[], None]] = {
            "log": self.ship,
            "releases": self.tend,
            "truth": self.align,
            "metrics": self.export,
            "accounts": self.account,
            "gateway": self.tend_gateway,
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
        own = {
            "metrics": _METRICS_SECONDS,
            "truth": max(usual, _TRUTH_SECONDS),
            "accounts": _ACCOUNTS_SECONDS,
            "gateway": max(usual, _GATEWAY_SECONDS),
            "traffic": _TRAFFIC_SECONDS,
            "questions": _QUESTIONS_SECONDS,
        }
        interval = own.get(part, usual)
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

    def tend_gateway(self) -> None:
        """Renew the certificate, let keys expire, turn the access log over."""
        for done in self._slipway.tend_gateway():
            log.info("gateway: %s", done)

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
        write_targets(self._slipway.settings, self._slipway.releases.parts.runtime.list())
        self._exporter.facts(datetime.now(UTC))

    def account(self) -> None:
        """Refresh the metrics that need a longer look or move slowly."""
        self._exporter.accounts(sorted(fleet_names(self._slipway.settings.fleet_dir)), datetime.now(UTC))

    def sample(self) -> None:
        """Keep the gateway's counters for the cockpit's pictures of traffic and errors."""
        self._slipway.sample_traffic(self._idle)

    def settle(self) -> None:
        """Answer in Airflow what was answered in the cockpit or by a command."""
        self._slipway.settle_questions(self._settled)


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
