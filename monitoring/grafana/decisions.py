"""What Slipway judges by itself: drift, quality, retraining."""

from __future__ import annotations

from grafana.parts import Board, graph, number, states

__all__ = ["VERDICTS", "board"]

_M = 'model=~"$model"'
VERDICTS = (("no_drift", "green"), ("drift", "red"), ("inconclusive", "yellow"), ("quarantined", "purple"))


def board() -> Board:
    """The dashboard `Slipway: decisions and drift`."""
    return (
        Board("decisions", "decisions and drift", "Drift verdicts, quality on labels, retraining and its breaker.")
        .row("Verdicts", *_verdicts())
        .row("Quality", *_quality())
        .row("Work", *_work())
    )


def _verdicts() -> list[object]:
    verdict = " + ".join(
        f'{index} * max by (model) (model_drift_verdict{{{_M}, verdict="{name}"}})'
        for index, (name, _) in enumerate(VERDICTS, start=1)
    )
    return [
        states(
            "Drift verdict",
            (verdict, "{{model}}"),
            names=[("none for this version", "transparent"), *VERDICTS],
            about="On the last window, for the version that is live. docs/drift.md tells how it is found.",
        ),
        graph(
            "Drift score",
            (f"model_drift_score{{{_M}}}", "{{model}}"),
            width=12,
            about="0 none, 1 complete. For the eye: the verdict does not rest on it.",
        ),
        number(
            "Confirmed drift",
            (f"model_drift_confirmed{{{_M}}}", "{{model}}"),
            limits=[(1, "red")],
            width=6,
            about="1 when as many of the last windows drifted as the model's policy asks for.",
        ),
        number(
            "Last judged",
            (f"model_drift_age_seconds{{{_M}}}", "{{model}}"),
            unit="s",
            width=6,
            limits=[(26 * 3600, "orange")],
            about="Time since a window was last judged; nightly runs keep it below a day.",
        ),
    ]


def _quality() -> list[object]:
    return [
        graph(
            "Quality on labels",
            (f"model_quality{{{_M}}}", "{{model}} {{metric}}"),
            width=12,
            about="The spec's metric on the labelled rows of the last window.",
        ),
        graph(
            "Labels",
            (f"sum by (model) (increase(feedback_labels_total{{{_M}}}[1h]))", "{{model}}"),
            width=12,
            about="That came in the hour before.",
        ),
    ]


def _work() -> list[object]:
    runs = 'airflow_dagrun_duration_seconds_count{dag_id=~".+_(data|train|drift|release)"}'
    return [
        number(
            "Retraining stopped",
            (f"model_retrain_blocked{{{_M}}}", "{{model}}"),
            limits=[(1, "red")],
            width=8,
            about="1 while the circuit breaker is open: a person has to look (docs/decisions.md).",
        ),
        graph(
            "Runs in an hour",
            (f"sum by (dag_id, state) (increase({runs}[1h]))", "{{dag_id}} {{state}}"),
            width=16,
            about="Ended runs of data, training, drift and release in the hour before.",
        ),
    ]
