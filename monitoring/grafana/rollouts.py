"""Who serves, and how a new version takes over."""

from __future__ import annotations

from grafana.parts import Board, graph, number, states

__all__ = ["PHASES", "board"]

_M = 'model=~"$model"'
PHASES = (
    ("packaged", "light-blue"),
    ("starting", "light-blue"),
    ("verifying", "blue"),
    ("replaying", "blue"),
    ("shadowing", "purple"),
    ("shifting", "orange"),
    ("baking", "yellow"),
    ("promoting", "light-green"),
    ("live", "green"),
    ("rolling_back", "red"),
    ("rolled_back", "dark-red"),
    ("aborted", "dark-red"),
)
"""In the order of `slipway.core.rollout_record.Phase`, with colours."""


def board() -> Board:
    """The dashboard `Slipway: rollouts`."""
    return (
        Board("rollouts", "rollouts", "Live versions, traffic weights, and the phases and checks of releases.")
        .row("Live", *_live())
        .row("Rollouts", *_rollouts())
        .row("New beside old", *_beside())
        .row("Agreement", *_agreement())
    )


def _live() -> list[object]:
    return [
        number(
            "Live versions",
            (f"model_live_version_info{{{_M}}}", "{{model}} {{version}} in {{slot}}"),
            width=12,
            only_names=True,
            about="Each model's live version and the slot that it runs in.",
        ),
        number(
            "Age of the champion",
            (f"champion_age_seconds{{{_M}}}", "{{model}}"),
            unit="s",
            width=12,
            limits=[(30 * 86400, "orange")],
            about="Time since the live version went live. An alert fires above 30 days.",
        ),
        graph(
            "Traffic weights",
            (f"model_traffic_weight{{{_M}}}", "{{model}} {{slot}}"),
            unit="percent",
            width=24,
            about="What share of the traffic each slot should get.",
        ),
    ]


def _rollouts() -> list[object]:
    phase = " + ".join(
        f'{index} * max by (model) (rollout_phase{{{_M}, phase="{name}"}})'
        for index, (name, _) in enumerate(PHASES, start=1)
    )
    return [
        states(
            "Phases",
            (phase, "{{model}}"),
            names=[("none", "transparent"), *PHASES],
            about="The phase of each model's running rollout; docs/releases.md explains them.",
        ),
        graph(
            "Time in the phase",
            (f"rollout_phase_age_seconds{{{_M}}}", "{{model}}"),
            unit="s",
            about="Time in the running rollout's phase or step.",
        ),
        graph(
            "Silence and lateness",
            (f"rollout_silent_seconds{{{_M}}}", "{{model}} not driven"),
            (f"rollout_overdue_seconds{{{_M}}}", "{{model}} beyond its deadline"),
            unit="s",
            about="A rollout that nobody drives for 2 minutes, or that is 5 minutes late, is stuck: an alert fires.",
        ),
        graph(
            "Waiting for a person",
            (f"rollout_awaits_approval{{{_M}}}", "{{model}}"),
            about="1 while a rollout asks whether it may go on: `slipway approve MODEL`.",
        ),
    ]


def _beside() -> list[object]:
    latency = f"sum by (model, version, le) (rate(prediction_latency_seconds_bucket{{{_M}}}[$__rate_interval]))"
    return [
        graph(
            "Requests by slot",
            (f"slot:gateway_requests:rate5m{{{_M}}}", "{{model}} {{slot}}"),
            unit="reqps",
            about="What the gateway sent to slots with traffic.",
        ),
        graph(
            "Errors by slot",
            (f"slot:gateway_errors:rate5m{{{_M}}}", "{{model}} {{slot}}"),
            unit="reqps",
            about="5xx answers of slots with traffic.",
        ),
        graph(
            "p99 by version",
            (f"histogram_quantile(0.99, {latency})", "{{model}} {{version}}"),
            unit="s",
            about="Old and new version over the same time.",
        ),
    ]


def _agreement() -> list[object]:
    return [
        graph(
            "Differences",
            ("keeper_differences", "{{part}}"),
            width=12,
            about="Where gateway, slots, alias or ledger are not as the tables want, and the keeper cannot repair it.",
        ),
        graph(
            "Failed rounds of the keeper",
            ("sum by (part) (rate(keeper_failures_total[$__rate_interval])) or vector(0)", "{{part}}"),
            width=12,
            about="A second, by part: log, releases, truth, metrics, accounts.",
        ),
    ]
