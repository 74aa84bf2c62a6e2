"""Airflow, by its own statsd metrics under the names of `monitoring/statsd/mapping.yml`."""

from __future__ import annotations

from grafana.parts import Board, graph, number

__all__ = ["board"]


def board() -> Board:
    """The dashboard `Slipway: Airflow`."""
    return (
        Board("airflow", "Airflow", "Scheduler, executor, runs and tasks.", by_model=False)
        .row("Now", *_now())
        .row("Runs and tasks", *_runs())
        .row("Scheduler", *_scheduler())
    )


def _now() -> list[object]:
    failed = 'airflow_dagrun_duration_seconds_count{state="failed"}'
    return [
        number(
            "Scheduler's heart",
            ("sum(rate(airflow_scheduler_heartbeats_total[$__rate_interval])) * 60", "beats a minute"),
            about="None for 5 minutes is an alert.",
            width=6,
        ),
        number("Running tasks", ("sum(airflow_executor_running_tasks)", "tasks"), width=6, about="In the executor."),
        number("Queued tasks", ("sum(airflow_executor_queued_tasks)", "tasks"), width=6, about="In the executor."),
        number(
            "Failed runs",
            (f"sum(increase({failed}[$__range])) or vector(0)", "in this time"),
            limits=[(1, "red")],
            width=6,
            about="DAG runs that ended in red in the time shown.",
        ),
    ]


def _runs() -> list[object]:
    count = "airflow_dagrun_duration_seconds_count"
    mean = "airflow_task_duration_seconds_sum / airflow_task_duration_seconds_count"
    waited = "airflow_task_scheduled_seconds"
    return [
        graph(
            "Ended runs in an hour",
            (f"sum by (dag_id, state) (increase({count}[1h]))", "{{dag_id}} {{state}}"),
            width=12,
            about="By DAG and state, in the hour before.",
        ),
        graph(
            "Duration of runs",
            (f"sum by (dag_id) (airflow_dagrun_duration_seconds_sum) / sum by (dag_id) ({count})", "{{dag_id}}"),
            unit="s",
            width=12,
            about="Mean since the statsd metrics began.",
        ),
        graph(
            "Ended tasks in an hour",
            ("sum by (state) (increase(airflow_task_finishes_total[1h]))", "{{state}}"),
            width=8,
            about="By state, in the hour before. Skipped tasks after `decide` are the normal night.",
        ),
        graph(
            "Longest tasks",
            (f"topk(10, {mean})", "{{dag_id}}.{{task_id}}"),
            unit="s",
            width=8,
            about="Mean duration of the ten longest tasks.",
        ),
        graph(
            "Waiting in the queue",
            (f"sum by (dag_id) ({waited}_sum) / sum by (dag_id) ({waited}_count)", "{{dag_id}}"),
            unit="s",
            width=8,
            about="Mean time until a task was queued.",
        ),
    ]


def _scheduler() -> list[object]:
    return [
        graph(
            "Heartbeats",
            ("rate(airflow_scheduler_heartbeats_total[$__rate_interval])", "scheduler"),
            ("rate(airflow_dag_processor_heartbeats_total[$__rate_interval])", "DAG processor"),
            ("rate(airflow_triggerer_heartbeats_total[$__rate_interval])", "triggerer"),
            about="A second.",
        ),
        graph(
            "Slots",
            ('airflow_pool_open_slots{pool!=""}', "{{pool}} open"),
            ('airflow_pool_running_slots{pool!=""}', "{{pool}} running"),
            ('airflow_pool_queued_slots{pool!=""}', "{{pool}} queued"),
            about="Of Airflow's pools.",
        ),
        graph(
            "DAG files",
            ("airflow_dag_import_errors", "that cannot be imported"),
            ("max(airflow_dag_file_parse_age_seconds)", "seconds since the oldest was read"),
            about="A fleet file that is wrong shows here.",
        ),
    ]
