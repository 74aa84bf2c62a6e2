"""What clients get: requests, errors, latency, capacity, and the log behind the answers."""

from __future__ import annotations

from grafana.parts import Board, graph, heatmap, number

__all__ = ["board"]

_M = 'model=~"$model"'


def board() -> Board:
    """The dashboard `Slipway: serving`."""
    return (
        Board("serving", "serving", "Requests, errors, latency and the prediction log of every model.")
        .row("Now", *_now())
        .row("Traffic", *_traffic())
        .row("Service", *_service())
        .row("Capacity", *_capacity())
        .row("Prediction log", *_log())
    )


def _now() -> list[object]:
    errors, requests = f"sum(model:gateway_errors:rate5m{{{_M}}})", f"sum(model:gateway_requests:rate5m{{{_M}}})"
    firing = 'ALERTS{alertstate="firing", alertname!="Watchdog"}'
    return [
        number("Requests", (requests, "a second"), unit="reqps", about="Requests that the gateway sent to bentos."),
        number(
            "Errors",
            (f"{errors} / {requests}", "share"),
            unit="percentunit",
            limits=[(0.001, "orange"), (0.01, "red")],
            about="Share of 5xx answers over 5 minutes. An alert fires above 1 %.",
        ),
        number(
            "p99",
            (f"max(model:prediction_latency_seconds:p99_rate5m{{{_M}}})", "slowest model"),
            unit="s",
            limits=[(0.1, "orange"), (0.25, "red")],
            about="Of the slowest model, inside of its bento. An alert fires above 250 ms.",
        ),
        number(
            "Bentos ready",
            (f"sum(prediction_ready{{{_M}}})", "ready"),
            about="Slots that answer their golden rows, those that are kept warm included.",
        ),
        number(
            "Rows waiting",
            (f"sum(prediction_log_pending_rows{{{_M}}})", "rows"),
            about="Answered rows that are in the spool and not in the lake yet.",
        ),
        number(
            "Alerts",
            (f"count({firing}) or vector(0)", "firing"),
            limits=[(1, "red")],
            about="Alerts that fire now. docs/runbooks.md has a section for each.",
        ),
    ]


def _traffic() -> list[object]:
    gateway = 'envoy_http_downstream_rq_xx{envoy_http_conn_manager_prefix="gateway"}'
    by_class = f"sum by (envoy_response_code_class) (rate({gateway}[$__rate_interval]))"
    return [
        graph(
            "Requests by model",
            (f"sum by (model) (rate(prediction_requests_total{{{_M}}}[$__rate_interval]))", "{{model}}"),
            unit="reqps",
            stacked=True,
            about="Answered prediction requests, without those that were only mirrored.",
        ),
        graph(
            "Requests by version",
            (
                f"sum by (model, version) (rate(model_version_requests_total{{{_M}}}[$__rate_interval]))",
                "{{model}} {{version}}",
            ),
            unit="reqps",
            stacked=True,
            about="Which version answers.",
        ),
        graph(
            "Answers of the gateway",
            (by_class, "{{envoy_response_code_class}}xx"),
            unit="reqps",
            stacked=True,
            about="Everything that clients asked, documentation and control routes included, by class of status.",
        ),
        graph(
            "Rows",
            (f"sum by (model) (rate(prediction_rows_total{{{_M}}}[$__rate_interval]))", "{{model}}"),
            unit="rowsps",
            about="Predicted rows; a batch has many.",
        ),
        graph(
            "Labels",
            (f"sum by (model) (rate(feedback_labels_total{{{_M}}}[$__rate_interval]))", "{{model}}"),
            about="Labels that came back by /feedback, a second.",
        ),
        graph(
            "Mirrored requests",
            (
                f"sum by (model, version) (rate(prediction_shadow_requests_total{{{_M}}}[$__rate_interval]))",
                "{{model}} {{version}}",
            ),
            unit="reqps",
            about="Replayed and shadow requests to a new version; their answers go nowhere.",
        ),
    ]


def _service() -> list[object]:
    refused = f"sum by (model, reason) (rate(prediction_errors_total{{{_M}}}[$__rate_interval]))"
    nothing = f"0 * sum by (model) (rate(prediction_requests_total{{{_M}}}[$__rate_interval]))"
    inside = f"sum by (model, le) (rate(prediction_latency_seconds_bucket{{{_M}}}[$__rate_interval]))"
    outside = f"sum by (model, le) (rate(envoy_cluster_upstream_rq_time_bucket{{{_M}}}[$__rate_interval]))"
    return [
        graph(
            "Share of errors",
            (f"model:gateway_error_ratio:rate5m{{{_M}}}", "{{model}}, 5 minutes"),
            (f"model:gateway_error_ratio:rate6h{{{_M}}}", "{{model}}, 6 hours"),
            unit="percentunit",
            about="5xx answers of the gateway by model.",
        ),
        graph(
            "Refused and failed",
            (f"{refused} or {nothing}", "{{model}} {{reason}}"),
            unit="reqps",
            about="By reason: invalid input is the client's, overload and log_full are ours.",
        ),
        heatmap(
            "Latency",
            f"sum by (le) (increase(prediction_latency_seconds_bucket{{{_M}}}[$__rate_interval]))",
            unit="s",
            about="From a request's head to its answer, inside of the bentos.",
        ),
        graph(
            "Latency inside of the bento",
            (f"histogram_quantile(0.5, {inside})", "{{model}} p50"),
            (f"histogram_quantile(0.99, {inside})", "{{model}} p99"),
            unit="s",
            width=12,
            about="Quantiles from the bento's own histogram.",
        ),
        graph(
            "Latency seen by the gateway",
            (f"histogram_quantile(0.5, {outside})", "{{model}} p50"),
            (f"histogram_quantile(0.99, {outside})", "{{model}} p99"),
            unit="ms",
            width=12,
            about="From the gateway's request to the bento's answer; waiting for a connection included.",
        ),
    ]


def _capacity() -> list[object]:
    return [
        graph(
            "In work",
            (f"sum by (model, slot) (prediction_in_flight{{{_M}}})", "{{model}} {{slot}}"),
            about="Requests that a bento works on. Beyond SLIPWAY_MAX_CONCURRENCY it answers 429.",
        ),
        graph(
            "Bytes in work",
            (f"sum by (model, slot) (prediction_in_flight_bytes{{{_M}}})", "{{model}} {{slot}}"),
            unit="bytes",
            about="Bodies in a bento's memory. Beyond SLIPWAY_MAX_IN_FLIGHT_BYTES it answers 429.",
        ),
        graph(
            "Connections to bentos",
            (f"sum by (model, slot) (envoy_cluster_upstream_cx_active{{{_M}}})", "{{model}} {{slot}}"),
            about="Open connections of the gateway.",
        ),
    ]


def _log() -> list[object]:
    logged = f"sum by (model) (rate(prediction_log_rows_total{{{_M}}}[$__rate_interval]))"
    shipped = f"sum by (model) (rate(prediction_log_shipped_rows_total{{{_M}}}[$__rate_interval]))"
    lost = f"sum by (model) (rate(prediction_log_lost_rows_total{{{_M}}}[$__rate_interval]))"
    refused = f"sum by (model) (rate(prediction_log_refused_rows_total{{{_M}}}[$__rate_interval]))"
    return [
        graph(
            "Logged and shipped",
            (logged, "{{model}} logged"),
            (shipped, "{{model}} shipped"),
            unit="rowsps",
            about="Rows written to the spool, and rows brought into the lake.",
        ),
        graph(
            "Oldest segment",
            (f"prediction_log_oldest_pending_seconds{{{_M}}}", "{{model}}"),
            unit="s",
            about="How long the oldest answered row has been waiting for the lake. An alert fires above 5 minutes.",
        ),
        graph(
            "Spool",
            ("max(prediction_log_spool_bytes)", "used"),
            ("max(prediction_log_spool_limit_bytes)", "limit"),
            unit="bytes",
            about="When it is full, models refuse or lose rows, as their log policy says.",
        ),
        graph(
            "Lost and refused",
            (lost, "{{model}} lost"),
            (refused, "{{model}} refused"),
            unit="rowsps",
            width=12,
            about="Rows that were answered and could not be logged, and rows that were refused for that reason.",
        ),
        graph(
            "Gaps",
            (f"prediction_log_incomplete_hours{{{_M}}}", "{{model}} hours"),
            (f"prediction_log_damaged_segments{{{_M}}}", "{{model}} segments"),
            width=12,
            about="Hours of the last 3 days with fewer logged rows than answered ones; damaged segments.",
        ),
    ]
