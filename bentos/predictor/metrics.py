"""Counters of one process, kept as plain integers and written in Prometheus' text format on demand.

A counter of prometheus_client costs about a microsecond, a good part of a whole prediction; BentoML also
runs it in its multi-process mode. One process serves a slot, so plain integers are exact.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter

from predictor.problems import Problem

__all__ = ["CONTENT_TYPE", "LATENCY_BUCKETS_SECONDS", "Metrics"]

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip


class Metrics:
    """What one bento process has done since it started.

    Shadow requests are apart: they are no traffic, so they touch neither the request counters nor the histogram.
    """

    def __init__(self) -> None:
        self.started_at = time.time()
        self.requests = 0
        self.rows = 0
        self.shadow_requests = 0
        self.shadow_errors = 0
        self.shadow_refused = 0
        self.logged_rows = 0
        self.lost_rows = 0
        self.refused_rows = 0
        self.labels = 0
        self.in_flight = 0
        self.in_flight_bytes = 0
        self.errors: Counter[str] = Counter()
        self.latency_sum = 0.0
        self.latency_counts = [0] * (len(LATENCY_BUCKETS_SECONDS) + 1)

    def answered(self, rows: int, seconds: float, shadow: bool) -> None:
        """Count one request that was answered with predictions."""
        if shadow:
            self.shadow_requests += 1
            return
        self.requests += 1
        self.rows += rows
        self.latency_sum += seconds
        self.latency_counts[bisect_left(LATENCY_BUCKETS_SECONDS, seconds)] += 1

    def failed(self, problem: Problem, shadow: bool) -> None:
        """Count one prediction request that was refused or failed; a shadow that met too much load is no error."""
        if not shadow:
            self.errors[problem.reason] += 1
        elif problem.status >= 500:
            self.shadow_errors += 1
        elif problem.status != 429:
            self.shadow_refused += 1

    def render(self, model: str, version: str, slot: str, ready: bool, spool_bytes: int) -> bytes:
        """Everything in the text format, labelled with model, version and slot."""
        labels = ",".join(f'{key}="{_escape(value)}"' for key, value in _labels(model, version, slot))
        lines: list[str] = []

        def metric(name: str, kind: str, text: str, value: float) -> None:
            lines.append(f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name}{{{labels}}} {value}")

        metric(
            "prediction_requests_total", "counter", "Answered prediction requests without shadow ones", self.requests
        )
        metric("model_version_requests_total", "counter", "Answered requests by model version.", self.requests)
        metric("prediction_rows_total", "counter", "Rows in answered prediction requests.", self.rows)
        metric("prediction_shadow_requests_total", "counter", "Answered shadow requests.", self.shadow_requests)
        metric("prediction_shadow_errors_total", "counter", "Failed shadow requests (5xx).", self.shadow_errors)
        metric("prediction_shadow_refused_total", "counter", "Invalid shadow requests (4xx).", self.shadow_refused)
        metric("prediction_log_rows_total", "counter", "Rows written to the prediction log.", self.logged_rows)
        metric("prediction_log_lost_rows_total", "counter", "Answered rows that could not be logged.", self.lost_rows)
        metric("prediction_log_refused_rows_total", "counter", "Rows refused as no log had room.", self.refused_rows)
        metric("prediction_log_spool_bytes", "gauge", "Bytes in the spool of this machine.", spool_bytes)
        metric("feedback_labels_total", "counter", "Labels taken in.", self.labels)
        metric("prediction_in_flight", "gauge", "Prediction requests in work.", self.in_flight)
        metric("prediction_in_flight_bytes", "gauge", "Bytes of bodies in work.", self.in_flight_bytes)
        metric("process_start_time_seconds", "gauge", "Unix time at which these counters began.", self.started_at)
        metric("prediction_ready", "gauge", "1 if the golden rows came out right.", int(ready))
        lines.extend(self._error_lines(labels))
        lines.extend(self._latency_lines(labels))
        return ("\n".join(lines) + "\n").encode()

    def _error_lines(self, labels: str) -> list[str]:
        name = "prediction_errors_total"
        lines = [f"# HELP {name} Prediction requests refused or failed, by reason.\n# TYPE {name} counter"]
        lines += [f'{name}{{{labels},reason="{reason}"}} {count}' for reason, count in sorted(self.errors.items())]
        return lines

    def _latency_lines(self, labels: str) -> list[str]:
        name = "prediction_latency_seconds"
        lines = [f"# HELP {name} From the request's head to the answer.\n# TYPE {name} histogram"]
        total = 0
        for bound, count in zip((*map(str, LATENCY_BUCKETS_SECONDS), "+Inf"), self.latency_counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        lines += [f"{name}_sum{{{labels}}} {self.latency_sum}", f"{name}_count{{{labels}}} {total}"]
        return lines


def _labels(model: str, version: str, slot: str) -> tuple[tuple[str, str], ...]:
    return ("model", model), ("version", version), ("slot", slot)


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
